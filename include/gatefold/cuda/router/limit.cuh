// The launches of capacity: one where the batch shares it, two where groups of tokens do or weights are divided anew.
#pragma once

#include <gatefold/core/workspace.hpp>
#include <gatefold/cuda/plan_call.cuh>
#include <gatefold/cuda/router/capacity.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// Workspace of capacity.
template <layer_type L>
struct limit_buffers {
    using word = order_word<typename L::accumulate_type>;
    static constexpr capacity_config c = L::c.capacity;
    static constexpr bool limited = drops(L::c);
    static constexpr bool one_group = c.shared_by == capacity_group::batch;
    static constexpr bool settles = limited && (!one_group || c.renormalise_kept);
    static constexpr bool keeps_words = c.keeps == priority::importance || c.keeps == priority::importance_sum ||
                                        (c.keeps == priority::probability && c.renormalise_kept);

    std::int32_t *offsets, *rows, *counts;
    word* words;
    std::uint8_t* kept;

    constexpr limit_buffers(carver& memory, index_t tokens)
        : offsets(memory.take<std::int32_t>(limited ? L::choices + 1 : 0)),
          rows(memory.take<std::int32_t>(limited ? tokens * L::slots : 0)),
          counts(memory.take<std::int32_t>(settles ? index_t{most_group_blocks} * L::choices : 0)),
          words(memory.take<word>(limited && keeps_words ? tokens * L::slots : 0)),
          kept(memory.take<std::uint8_t>(settles ? tokens * L::slots : 0)) {}
};

/// The groups of a call.
template <layer_type L>
capacity_groups groups_of(const batch<L, cuda>& in, const options<L>& o) {
    constexpr capacity_config c = L::c.capacity;
    capacity_groups g;
    g.tokens = in.x.extent(0);
    g.rule = c;
    g.factor = decimal_of(o.capacity_factor);
    g.experts = L::choices;
    g.top_k = L::top_k;
    g.training = o.training;
    if constexpr (c.shared_by == capacity_group::sequence) {
        g.starts = in.sequence_starts.data();
        g.count = static_cast<int>(in.sequence_starts.extent(0));
    } else {
        g.size = c.shared_by == capacity_group::fixed && c.group_size < g.tokens ? c.group_size : g.tokens;
        g.count = static_cast<int>(ceil_div(g.tokens, g.size));
        const auto most = [&](index_t n) {
            return capacity_of(c, o.capacity_factor, n, L::choices, L::top_k, o.training, n * L::slots);
        };
        g.most = most(g.size);
        g.most_of_last = most(g.tokens - (g.count - 1) * g.size);
    }
    return g;
}

/// From the plan of all pairs in `memory` to `plan`, that of the kept ones; without it only `kept` is written. Rows of
/// the routing have no gaps but for the logits.
template <class P, layer_type L>
void limit_pairs(context<cuda>& ctx, P, const batch<L, cuda>& in, const options<L>& o,
                 const routing_view<L, cuda>& routing, const limit_buffers<L>& memory, std::uint8_t* kept,
                 const plan_output* plan) {
    using buffers = limit_buffers<L>;
    constexpr int N = L::choices;
    limit_arguments<P> a;
    a.groups = groups_of(in, o);
    require(a.groups.count > 0, "apply_capacity", "sequence_starts", "at least one start", a.groups.count);
    a.offsets = memory.offsets;
    a.rows = memory.rows;
    a.ids = routing.ids.data();
    a.logits = routing.logits.data();
    a.logits_stride = routing.logits.row_stride();
    a.weights = routing.weights.data();
    a.words = memory.words;
    a.kept = kept;
    a.counts = buffers::settles ? memory.counts : nullptr;
    a.blocks = a.groups.count < most_group_blocks ? a.groups.count : most_group_blocks;
    a.experts = L::experts;
    a.numbers.scale = o.scale;
    a.numbers.epsilon = o.epsilon;
    a.numbers.power = L::c.router.power;
    a.control = ctx.control();
    if (plan) a.plan = *plan;
    a.plans = plan && !buffers::settles;
    admit_pairs<P, L::c.capacity.keeps>
        <<<dim3(static_cast<unsigned>(N + (a.plans ? 1 : 0)), static_cast<unsigned>(a.blocks)), plan_threads, 0,
           ctx.stream()>>>(a);
    check_kernel("apply_capacity");
    if constexpr (buffers::settles) {
        a.plans = plan != nullptr;
        constexpr int warps = plan_threads / 32;
        const index_t blocks =
            (plan ? N + 1 : 0) + (L::c.capacity.renormalise_kept ? ceil_div(a.groups.tokens, index_t{warps}) : 0);
        if (blocks == 0) return;
        settle_pairs<P><<<static_cast<unsigned>(blocks), plan_threads, 0, ctx.stream()>>>(a);
        check_kernel("apply_capacity");
    }
}

/// The stage as a call of its own: a plan of all pairs, then their flags.
template <layer_type L>
void apply_capacity(context<cuda>& ctx, const batch<L, cuda>& in, const options<L>& o,
                    const routing_view<L, cuda>& routing, std::uint8_t* kept) {
    const index_t tokens = in.x.extent(0), pairs = tokens * L::slots;
    require(routing.ids.is_contiguous() || tokens == 1, "apply_capacity", "ids", "rows without gaps",
            routing.ids.row_stride());
    require(routing.weights.is_contiguous() || tokens == 1, "apply_capacity", "weights", "rows without gaps",
            routing.weights.row_stride());
    const auto take = [&](carver memory) {
        struct {
            limit_buffers<L> limit;
            std::int32_t *place, *counts;
            std::size_t bytes;
        } m{{memory, tokens},
            memory.take<std::int32_t>(pairs),
            memory.take<std::int32_t>(ceil_div(pairs, index_t{counted_pairs}) * L::choices),
            0};
        m.bytes = memory.used();
        return m;
    };
    const auto m = take(carver(ctx.workspace(take(carver(nullptr)).bytes)));
    make_plan<L::choices>(ctx, {routing.ids.data(), nullptr}, pairs, L::experts,
                          {m.limit.offsets, m.limit.rows, m.place}, m.counts);
    check(cudaMemsetAsync(kept, 0, static_cast<std::size_t>(pairs), ctx.stream()), "apply_capacity");
    limit_pairs(ctx, policy_of<L>{}, in, o, routing, m.limit, kept, nullptr);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
