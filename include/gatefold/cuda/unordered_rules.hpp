// Which layers can do without a combine (unordered.cuh), as sentences that stop the build. Needs no nvcc.
#pragma once

#include <gatefold/moe/layer.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

template <layer_type L>
struct unordered_supported {
    static_assert(!L::is_dense, "gatefold::forward: a dense layer adds nothing up; call forward without unordered");
    static_assert(L::slots > 1,
                  "gatefold::forward: one expert per token leaves nothing to reorder; call forward without unordered");
    static_assert(L::choices == L::experts,
                  "gatefold::forward: free experts are computed by the combine, which unordered leaves out; call "
                  "forward without it");
    static_assert(L::c.latent == 0,
                  "gatefold::forward: a latent width is left after the combine, which unordered leaves out; call "
                  "forward without it");
    static_assert(!L::c.shared.gate,
                  "gatefold::forward: the gate of a shared expert is applied by the combine, which unordered leaves "
                  "out; call forward without it");
    static constexpr bool value = true;
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
