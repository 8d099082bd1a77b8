// Float layers with their experts on the tensor cores: operands rounded to tf32. Not part of gatefold.hpp, so that
// nothing is rounded, and nothing compiled, that was not asked for.
//
//     forward(ctx, tf32, w, x, y)      router, plan and combine stay exact: ids and weights are those of forward(ctx,
//     w, x, y)
#pragma once

#include <gatefold/cuda/gemm/tf32.cuh>
#include <gatefold/gatefold.hpp>

namespace gatefold::inline v0 {

/// Asks for products of operands rounded to tf32.
struct tf32_t {};
inline constexpr tf32_t tf32{};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// forward(ctx, w, in, y, o) with the products of the experts, shared ones too, on rounded operands.
///
/// Throws: as forward does.
template <layer_weights W>
void forward(context<cuda>& ctx, tf32_t, const W& w,
             const std::type_identity_t<batch<typename W::layer_type, cuda>>& in, output_of<W> y,
             const options<typename W::layer_type>& o = {}) {
    static_assert(std::is_same_v<typename W::layer_type::value_type, float>,
                  "gatefold::forward: tf32 is for layers of float; call forward without it");
    detail::check_forward(ctx, w, in, y, o);
    if (in.x.extent(0) == 0) return;
    tape<typename W::layer_type, cuda>* none = nullptr;
    detail::on_cuda::layer_forward<detail::on_cuda::tf32_stage>(ctx, w, in, y, none, o);
    ctx.end_call("forward");
}
template <layer_weights W>
void forward(context<cuda>& ctx, tf32_t tag, const W& w, input_of<W> x, output_of<W> y,
             const options<typename W::layer_type>& o = {}) {
    forward(ctx, tag, w, batch<typename W::layer_type, cuda>{.x = x}, y, o);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
