// What a configuration may say and the CUDA wing does not do, as sentences that stop the build.
#pragma once

#include <gatefold/moe/layer.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

template <layer_type L>
struct supported {
    static_assert(L::c.dropout == 0,
                  "gatefold: dropout inside experts is drawn on the CPU only; set .dropout to 0 for a layer on CUDA");
    static constexpr bool value = true;
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
