// The seam between what the layer does and where it is done: every backend's wing specialises this template once.
//
//     moe/forward.hpp, moe/backward.hpp, ... ──> detail::impl<cpu>  (cpu/wing.hpp)
//                                           └──> detail::impl<cuda> (cuda/wing.cuh, under nvcc)
#pragma once

#include <gatefold/core/backend.hpp>
#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// The stages of a layer on backend B:
///     forward(ctx, w, in, y, tape or nullptr, options)       forward_bytes<L>(tokens, threads)
///     backward(ctx, w, in, tape, dy, dx, gradients, options) training_bytes<L>(tokens, threads)
///     make_plan<L>(ctx, ids, kept or nullptr, plan)
///     experts(ctx, w, in, plan, routing, z, options)         combine(ctx, w, in, plan, routing, z, y, options)
template <backend B>
struct impl;

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER
