// The running means of what experts return, from which estimator::default_vectors learns about experts that were not
// run.
//
//     forward(ctx, w, in, y, tape, o) ──> update(ctx, output_average{}, w, in, tape, o) ──> w.default_vectors
//                                    └──> backward(ctx, w, in, tape, …): reads w.default_vectors
//
// Once per step, before or after backward. The vectors are a buffer of the weights: checkpoints hold them.
#pragma once

#include <gatefold/moe/balance.hpp>
#include <gatefold/moe/check.hpp>
#include <gatefold/moe/seam.hpp>
#include <gatefold/moe/tape.hpp>

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Moves w.default_vectors [E, H] by one step towards the mean of what each expert returned for its tokens in the
/// forward call that filled the tape, tokens of padding left out; `in` and `o` are those of that call.
///
/// Throws:  argument_error for a tape of other tokens, a mask that does not fit, a decay outside [0, 1]; std::bad_alloc
///          if the workspace must grow and cannot. Nothing is written then.
/// Bits:    the same for any number of threads.
template <layer_type L, backend B>
void update(context<B>& ctx, const output_average& controller, weights<L, B>& w,
            const std::type_identity_t<batch<L, B>>& in, tape<L, B>& saved,
            const std::type_identity_t<options<L>>& o = {}) {
    static_assert(L::c.router.learns_from == estimator::default_vectors,
                  "gatefold::update: only a layer that learns from default vectors has them; set .router.learns_from "
                  "to estimator::default_vectors");
    static_assert(__is_same(B, cpu), "gatefold::update: default vectors move on the CPU, where backward reads them");
    require(controller.decay >= 0 && controller.decay <= 1, "update", "decay", "a number from 0 to 1",
            controller.decay);
    require(in.x.extent(0) == saved.tokens(), "update", "tape", "a tape of the same tokens", saved.tokens());
    if (in.mask.data()) detail::check_view("update", "mask", in.mask, saved.tokens());
    detail::check_weights("update", w);
    detail::check_dropout("update", o);
    if (saved.tokens() > 0) detail::impl<B>::update_default_vectors(ctx, controller, w, in, saved, o);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
