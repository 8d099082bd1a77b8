// Forward of the layer on CUDA: the launches of one call, in one stream, without a word to the host.
//
//     route_tokens ──> (scatter_pairs) ──> (capacity) ──> up projections ──> down projections ──> combine ──> y
//     one expert:      up projection ──> down projection ──> y
//
// Grids depend on the number of tokens alone, never on the routing, so a call can be captured in a graph. Nothing is
// allocated once the workspace is there.
#pragma once

#include <gatefold/cuda/device/arguments.cuh>
#include <gatefold/cuda/device/support.cuh>
#include <gatefold/cuda/device/tensor.cuh>
#include <gatefold/cuda/forward_parts.cuh>
#include <gatefold/cuda/router/limit.cuh>
#include <gatefold/cuda/router/route.cuh>
#include <gatefold/moe/tape.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// A dense layer: both projections, and an addition where y is added to.
template <class Stage, class W, layer_type L = typename W::layer_type>
void dense_forward(context<cuda>& ctx, const W& w, grouped_product<typename L::value_type> p,
                   combine_arguments<typename L::value_type> c, const forward_memory<L>& memory, index_t tokens) {
    using T = typename L::value_type;
    p.rows = static_cast<int>(tokens);
    const int tile_rows = tile_rows_for<T>(ctx, tokens, 1);
    stage_output<T> to{memory.activated, c.y, c.y_stride, true};
    if (c.accumulate) to = {memory.activated, memory.returned, row_pitch(L::width), false};
    Stage::template run<routed_kind<L>, is_packed<W>, false, false>(ctx, routed_matrices(w), p, tokens, 1, tile_rows,
                                                                    to);
    if (!c.accumulate) return;
    c.z = memory.returned;
    c.z_stride = row_pitch(L::width);
    run_combine<L::hidden, 1>(ctx, combine_for<L, false>{}, c);
}

/// The routing and the plan of its kept pairs, on the tape or in the workspace.
template <class W, layer_type L = typename W::layer_type>
plan_output route_and_plan(context<cuda>& ctx, const W& w, const batch<L, cuda>& in, const options<L>& o,
                           const token_rows<typename L::value_type>& rows, const routing_view<L, cuda>& routing,
                           tape<L, cuda>* saved, const forward_memory<L>& memory, int tile_rows) {
    plan_output plan{memory.offsets, memory.rows, memory.place, memory.tiles, memory.tile_count, tile_rows};
    if (saved) {
        const plan_view<cuda> kept = saved->plan();
        plan.offsets = kept.offsets.data();
        plan.rows = kept.rows.data();
        plan.place = kept.place.data();
    }
    typename L::accumulate_type* deviations = nullptr;
    if constexpr (L::c.router.transform == logit_transform::noisy_top_k)
        if (saved) deviations = saved->deviations().data();
    shared_gate<typename L::value_type> gate;
    if constexpr (L::c.shared.gate)
        gate = {rows.given, w.shared_gate.data(), rows.given_stride, L::hidden, memory.gates};
    if constexpr (drops(L::c)) {
        const plan_output all{memory.limit.offsets, memory.limit.rows, plan.place};
        route(ctx, route_call<W>{w, in, o, routing, memory.route, &all, memory.counts, deviations, gate});
        limit_pairs(ctx, policy_of<L>{}, in, o, routing, memory.limit,
                    limit_buffers<L>::settles ? memory.limit.kept : nullptr, &plan);
    } else {
        route(ctx, route_call<W>{w, in, o, routing, memory.route, &plan, memory.counts, deviations, gate});
    }
    return plan;
}

template <class Stage, class W, layer_type L = typename W::layer_type>
void routed_forward(context<cuda>& ctx, const W& w, const batch<L, cuda>& in, tape<L, cuda>* saved, const options<L>& o,
                    const combine_arguments<typename L::value_type>& c, const forward_memory<L>& memory) {
    using T = typename L::value_type;
    const index_t tokens = in.x.extent(0);
    const routing_view<L, cuda> routing = saved ? saved->routing()
                                                : routing_view<L, cuda>{{memory.ids, {tokens, L::slots}},
                                                                        {memory.weights, {tokens, L::slots}},
                                                                        {memory.logits, {tokens, L::choices}}};
    const token_rows<T> rows = read_rows(ctx, in, o, memory);
    const plan_output plan = route_and_plan(ctx, w, in, o, rows, routing, saved, memory,
                                            tile_rows_for<T>(ctx, tokens * L::slots, L::experts));
    T* shared_pre = nullptr;
    if constexpr (L::shared_ffn > 0)
        if (saved) shared_pre = saved->shared_gate_up().data();
    routed_products<Stage, shared_rides<L>>(ctx, w, rows, plan, routing.weights.data(), tokens, o,
                                            saved ? saved->gate_up().data() : nullptr, shared_pre, memory,
                                            memory.returned, row_pitch(L::width), false);
    if constexpr (forward_memory<L>::apart) shared_products<Stage>(ctx, w, rows, tokens, o, shared_pre, memory);
    combine_rows(ctx, w, rows, routing, plan.place, memory.returned, row_pitch(L::width), memory.gates, saved, o, c,
                 memory);
}

/// Rows of a 16-bit layer begin at whole vectors.
template <class T, int Width, class V>
void check_row_starts(const char* function, const char* argument, const V& v) {
    if constexpr (sizeof(T) == 2 && Width % 8 == 0)
        require(v.row_stride() % 8 == 0 || v.extent(0) <= 1, function, argument,
                "rows that begin at multiples of 16 bytes", v.row_stride());
}

template <class Stage = default_stage, class W, layer_type L = typename W::layer_type>
void layer_forward(context<cuda>& ctx, const W& w, const batch<L, cuda>& in, const output_of<W>& y,
                   tape<L, cuda>* saved, const options<L>& o) {
    static_assert(supported<L>::value);
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    const call_scope scope(ctx, "forward");
    check_device_batch("forward", in, ctx.device());
    check_device_memory("forward", "y", y, ctx.device());
    check_device_weights("forward", w, ctx.device());
    if (saved) check_device_memory("forward", "tape", saved->gate_up(), ctx.device());
    const index_t tokens = in.x.extent(0);
    carver arrays(ctx.workspace(forward_bytes<L>(tokens)));
    const forward_memory<L> memory(arrays, tokens);
    check_row_starts<T, L::hidden>("forward", "x", in.x);
    check_row_starts<T, L::hidden>("forward", "y", y);
    combine_arguments<T> c;
    c.y = y.data();
    c.y_stride = y.row_stride();
    c.tokens = static_cast<int>(tokens);
    c.accumulate = o.accumulate;
    if constexpr (L::is_dense) {
        grouped_product<T> p;
        p.in = in.x.data();
        p.in_stride = in.x.row_stride();
        p.limit = static_cast<A>(o.limit);
        if (saved) p.pre = saved->gate_up().data();
        dense_forward<Stage>(ctx, w, p, c, memory, tokens);
    } else {
        routed_forward<Stage>(ctx, w, in, saved, o, c, memory);
        const auto zero = [&](const auto& v) {
            check(cudaMemsetAsync(v.data(), 0, static_cast<std::size_t>(v.size()) * sizeof(A), ctx.stream()),
                  "forward: tape");
        };
        if (saved) {
            zero(saved->logit_gradients());
            if constexpr (L::c.router.transform == logit_transform::noisy_top_k) zero(saved->deviation_gradients());
        }
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
