// The experts as a call of their own: gathered rows in, what each expert returns for them out, in plan order.
//
//     x[T,H] + plan ── gather ──> × [gate|up], activation ──> × down ──> z[rows,W] ── combine ──> y
//
// forward fuses this stage with its neighbours; one by one, the stages give the same bits.
#pragma once

#include <type_traits>

#include <gatefold/moe/check.hpp>
#include <gatefold/moe/router.hpp>
#include <gatefold/moe/seam.hpp>

namespace gatefold::inline v0 {

namespace detail {
template <layer_type L, backend B>
struct expert_rows {
    using element = typename L::value_type;
};
template <layer_type L>
struct expert_rows<L, cpu> {
    using element = typename L::accumulate_type;
};
}  // namespace detail

/// An element of what an expert returns, as forward passes it on: an unrounded sum on the CPU, the layer's type on
/// CUDA.
template <layer_type L, backend B = cpu>
using expert_sum = typename detail::expert_rows<L, B>::element;

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// Plan and routing of the tokens of a call.
template <layer_type L, backend B>
void check_stage(const char* function, const context<B>& ctx, const batch<L, B>& in, const plan_view<B>& plan,
                 const routing_view<L, B>& routing) {
    const index_t tokens = in.x.extent(0);
    check_batch(function, ctx, in, true);
    if (!(plan.tokens == tokens)) [[unlikely]]
        reject(function, "plan", counted("a plan of ", tokens, " tokens"), plan.tokens);
    if (!(plan.slots == L::slots)) [[unlikely]]
        reject(function, "plan", counted("a plan of ", L::slots, " slots"), plan.slots);
    check_view(function, "offsets", plan.offsets, L::choices + 1);
    check_view(function, "rows", plan.rows, tokens * L::slots);
    check_view(function, "place", plan.place, tokens * L::slots);
    check_view(function, "ids", routing.ids, tokens);
    check_view(function, "weights", routing.weights, tokens);
    require(routing.weights.is_contiguous() || tokens <= 1, function, "weights", "rows without gaps",
            routing.weights.row_stride());
    if constexpr (__is_same(B, cpu)) {
        const index_t pairs = tokens * L::slots;
        for (int e = 0; e <= L::choices; ++e)
            if (!(plan.offsets[e] >= (e == 0 ? 0 : plan.offsets[e - 1]) && plan.offsets[e] <= pairs)) [[unlikely]]
                reject(function, "offsets", counted("ascending rows up to ", pairs), plan.offsets[e]);
        for (index_t r = 0; r < plan.offsets[L::choices]; ++r)
            if (!(plan.rows[r] >= 0 && plan.rows[r] < pairs)) [[unlikely]]
                reject(function, "rows", counted("pairs below ", pairs), plan.rows[r]);
        for (index_t p = 0; p < pairs; ++p)
            if (!(plan.place[p] >= -1 && plan.place[p] < plan.offsets[L::choices])) [[unlikely]]
                reject(function, "place", counted("rows below ", plan.offsets[L::choices], " or -1"), plan.place[p]);
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// z[r] = what the expert of row r returns for the token of row r, rows in plan order.
///
/// Shapes:  in.x [T, H]; plan and routing of these tokens; z [T * S, W], of which the rows of experts with weights are
///          written: those below plan.offsets[E].
/// Throws:  argument_error for views that do not fit, overlap, are null or misaligned; z is untouched then.
/// routing.weights is read where weights act on the inputs of experts. A plan in device memory must be one that
/// make_plan made: only the CPU looks into it.
template <layer_weights W>
void experts(
    context<typename W::backend>& ctx, const W& w,
    const std::type_identity_t<batch<typename W::layer_type, typename W::backend>>& in,
    const plan_view<typename W::backend>& plan,
    const std::type_identity_t<routing_view<typename W::layer_type, typename W::backend>>& routing,
    std::type_identity_t<basic_view<typename W::backend, expert_sum<typename W::layer_type, typename W::backend>, dyn,
                                    W::layer_type::width>>
        z,
    const options<typename W::layer_type>& o = {}) {
    using L = typename W::layer_type;
    static_assert(!L::is_dense, "gatefold::experts: a dense layer has no plan; run it with gatefold::forward");
    detail::check_stage("experts", ctx, in, plan, routing);
    detail::check_view("experts", "z", z, in.x.extent(0) * L::slots);
    detail::check_disjoint("experts", "z", z, "x", in.x);
    detail::check_weights("experts", w);
    detail::check_matrices("experts", w);
    detail::check_dropout("experts", o);
    if (in.x.extent(0) == 0) return;
    detail::impl<typename W::backend>::experts(ctx, w, in, plan, routing, z, o);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
