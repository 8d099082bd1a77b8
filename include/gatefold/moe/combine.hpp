// The combine as a call of its own: what the experts returned, weighted and summed per token.
//
//     z[rows,W] + weights[T,S] + plan ──> Σ over ascending experts ── scale, latent projection, shared expert ──>
//     y[T,H]
#pragma once

#include <gatefold/moe/experts.hpp>

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// y[t] = the weighted sum of z over the experts of token t in ascending order, free experts and the shared expert
/// included; with options.accumulate it is added to y.
///
/// Shapes:  in.x, y [T, H]; plan and routing of these tokens; z [T * S, W] as experts filled it.
/// Throws:  argument_error for views that do not fit, overlap, are null or misaligned; y is untouched then.
/// Bits:    after route, make_plan and experts those of forward.
template <layer_weights W>
void combine(
    context<typename W::backend>& ctx, const W& w,
    const std::type_identity_t<batch<typename W::layer_type, typename W::backend>>& in,
    const plan_view<typename W::backend>& plan,
    const std::type_identity_t<routing_view<typename W::layer_type, typename W::backend>>& routing,
    std::type_identity_t<basic_view<typename W::backend, const expert_sum<typename W::layer_type, typename W::backend>,
                                    dyn, W::layer_type::width>>
        z,
    output_of<W> y, const options<typename W::layer_type>& o = {}) {
    using L = typename W::layer_type;
    static_assert(!L::is_dense,
                  "gatefold::combine: a dense layer has nothing to combine; run it with gatefold::forward");
    detail::check_stage("combine", ctx, in, plan, routing);
    detail::check_view("combine", "z", z, in.x.extent(0) * L::slots);
    detail::check_view("combine", "y", y, in.x.extent(0));
    detail::check_disjoint("combine", "y", y, "z", z);
    detail::check_disjoint("combine", "y", y, "x", in.x);
    detail::check_weights("combine", w);
    if constexpr (L::shared_ffn > 0) detail::check_matrices("combine", w);
    if (in.x.extent(0) == 0) return;
    detail::impl<typename W::backend>::combine(ctx, w, in, plan, routing, z, y, o);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
