// Experts and combine as stages of their own on CUDA: the pieces of forward with the caller's memory between them.
//
//     plan ── list_tiles_of ──> tiles     x ── routed_products ──> z[rows,W] ── combine_rows ──> y
#pragma once

#include <gatefold/cuda/forward.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// The tile list of a plan that is there already; one block.
template <int N>
__global__ void __launch_bounds__(plan_threads) list_tiles_of(int experts, const plan_output plan) {
    __shared__ plan_memory<N> shared;
    for (int e = static_cast<int>(threadIdx.x); e <= N; e += plan_threads) shared.start[e] = plan.offsets[e];
    __syncthreads();
    list_tiles<N>(shared, experts, plan);
}

template <class W, layer_type L = typename W::layer_type, class T = typename L::value_type>
void experts_stage(context<cuda>& ctx, const W& w, const batch<L, cuda>& in, const plan_view<cuda>& plan,
                   const routing_view<L, cuda>& routing, const basic_view<cuda, T, dyn, L::width>& z,
                   const options<L>& o) {
    static_assert(supported<L>::value);
    const call_scope scope(ctx, "experts");
    check_device_batch("experts", in, ctx.device());
    check_device_plan("experts", plan, ctx.device());
    check_device_routing("experts", routing, ctx.device());
    check_device_memory("experts", "z", z, ctx.device());
    check_device_weights("experts", w, ctx.device());
    check_row_starts<T, L::hidden>("experts", "x", in.x);
    check_row_starts<T, L::width>("experts", "z", z);
    const index_t tokens = in.x.extent(0);
    carver arrays(ctx.workspace(forward_bytes<L>(tokens)));
    const forward_memory<L> memory(arrays, tokens);
    const plan_output to{plan.offsets.data(), plan.rows.data(),  plan.place.data(),
                         memory.tiles,        memory.tile_count, tile_rows_for<T>(ctx, tokens * L::slots, L::experts)};
    list_tiles_of<L::choices><<<1, plan_threads, 0, ctx.stream()>>>(int{L::experts}, to);
    check_kernel("experts: tiles");
    routed_products(ctx, w, read_rows(ctx, in, o, memory), to, routing.weights.data(), tokens, o,
                    static_cast<T*>(nullptr), static_cast<T*>(nullptr), memory, z.data(), z.row_stride(), true);
}

template <class W, layer_type L = typename W::layer_type, class T = typename L::value_type>
void combine_stage(context<cuda>& ctx, const W& w, const batch<L, cuda>& in, const plan_view<cuda>& plan,
                   const routing_view<L, cuda>& routing, const basic_view<cuda, const T, dyn, L::width>& z,
                   const output_of<W>& y, const options<L>& o) {
    const call_scope scope(ctx, "combine");
    check_device_batch("combine", in, ctx.device());
    check_device_plan("combine", plan, ctx.device());
    check_device_routing("combine", routing, ctx.device());
    check_device_memory("combine", "z", z, ctx.device());
    check_device_memory("combine", "y", y, ctx.device());
    check_device_weights("combine", w, ctx.device());
    check_row_starts<T, L::hidden>("combine", "x", in.x);
    check_row_starts<T, L::hidden>("combine", "y", y);
    constexpr int wide = static_cast<int>(16 / sizeof(T));
    require(L::width % wide != 0 || z.row_stride() % wide == 0, "combine", "z",
            "rows that begin at multiples of 16 bytes", z.row_stride());
    const index_t tokens = in.x.extent(0);
    carver arrays(ctx.workspace(forward_bytes<L>(tokens)));
    const forward_memory<L> memory(arrays, tokens);
    combine_arguments<T> c;
    c.y = y.data();
    c.y_stride = y.row_stride();
    c.tokens = static_cast<int>(tokens);
    c.accumulate = o.accumulate;
    const token_rows<T> rows = read_rows(ctx, in, o, memory);
    if constexpr (L::shared_ffn > 0) shared_products(ctx, w, rows, tokens, o, static_cast<T*>(nullptr), memory);
    combine_rows(ctx, w, rows, routing, plan.place.data(), z.data(), z.row_stride(), nullptr,
                 static_cast<tape<L, cuda>*>(nullptr), o, c, memory);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
