// Experts and combine as stages of their own on the CPU: the pieces of forward with memory between them.
//
//     x ── run_experts ──> z[rows,W] ── Σ ascending experts ──> sums ── finish_routed, add_shared ──> y
#pragma once

#include <gatefold/cpu/forward.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

template <class W, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
void experts_stage(context<cpu>& ctx, const W& w, const batch<L>& in, const plan_view<cpu>& plan,
                   const routing_view<L>& routing, const view<A, dyn, L::width>& z, const options<L>& o) {
    const index_t tokens = in.x.extent(0);
    carver arrays(ctx.workspace(forward_bytes<L>(tokens, ctx.threads())));
    const forward_memory<L> memory(arrays, tokens, ctx.threads());
    const batch<L> read = routed_batch(ctx, experts_batch(ctx, in, o, memory), memory);
    const expert_input<typename L::value_type> input{{L::experts, plan.offsets.data(), 0},
                                                     routed_rows(ctx, w, read, plan, routing.weights.data(), memory)};
    run_routed<L>(ctx, memory.experts, input, w, o, kept_activations<typename L::value_type>{},
                  rows_into<A>{z.data(), z.row_stride()}, dropout_of(o, in.first_token, plan.rows.data(), L::slots));
}

template <class W, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
void combine_stage(context<cpu>& ctx, const W& w, const batch<L>& in, const plan_view<cpu>& plan,
                   const routing_view<L>& routing, const view<const A, dyn, L::width>& z,
                   const view<typename L::value_type, dyn, L::hidden>& y, const options<L>& o) {
    constexpr bool on_input = L::c.router.acts_on == weight_at::input;
    const index_t tokens = in.x.extent(0);
    carver arrays(ctx.workspace(forward_bytes<L>(tokens, ctx.threads())));
    const forward_memory<L> memory(arrays, tokens, ctx.threads());
    const batch<L> given = experts_batch(ctx, in, o, memory), read = routed_batch(ctx, given, memory);
    A* routed = L::c.latent > 0 ? memory.latent_sums : memory.sums;
    for_each_token(ctx, tokens, [&](index_t t) {
        A* sum = routed + t * L::width;
        for (int h = 0; h < L::width; ++h) sum[h] = 0;
        const std::int32_t* place = plan.place.data() + t * L::slots;
        const ordered_slots<L::slots> order(place);
        for (int i = 0; i < order.count; ++i) {
            const int s = order.slot[i];
            if (routing.ids(t, s) >= L::experts) continue;
            const vec<A> weight = broadcast<A>(on_input ? A{1} : routing.weights(t, s));
            const A* returned = z.row(place[s]);
            // As deliver_tile adds it, which rounds once also where there is no instruction for it.
            for (index_t h = 0; h < L::width; h += lanes<A>)
                store_first(sum + h,
                            number<vec<A>>::fma(weight, load_first<A>(returned + h, L::width - h),
                                                load_first<A>(sum + h, L::width - h)),
                            L::width - h);
        }
    });
    finish_routed(ctx, w, given, read, plan, routing, routed, index_t{L::width}, memory.sums, index_t{L::hidden}, o,
                  memory);
    const round_into<typename L::value_type> result{y.data(), y.row_stride(), tokens, o.accumulate};
    if constexpr (L::shared_ffn > 0)
        add_shared(ctx, w, given, memory.sums, index_t{L::hidden}, static_cast<tape<L>*>(nullptr), o, memory, result);
    else
        round_sums<L>(ctx, memory.sums, result);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
