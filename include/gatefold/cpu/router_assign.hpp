// Routers on the CPU that look at all tokens of a batch before they give one its experts.
//
//     expert_choice   scores[T,N] ── per expert, its best C tokens ──> ids in ascending expert
//     sinkhorn        exp(logits) ── rows and columns scaled in turn until they are balanced ──> keys ──> top-k
//     balanced        logits ── auction ──> one expert per token, ceil(T/N) tokens per expert at most
//
// None of them is causal. The last two act in training; at inference a token is routed by its own logits.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/cpu/capacity.hpp>
#include <gatefold/cpu/router_choose.hpp>
#include <gatefold/cpu/router_columns.hpp>
#include <gatefold/cpu/router_logits.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Workspace of an assignment over the batch.
template <layer_type L>
struct assign_memory {
    using A = typename L::accumulate_type;
    static constexpr selection select = L::c.router.select;
    static constexpr bool choice = select == selection::expert_choice, sinkhorn = select == selection::sinkhorn,
                          auction = select == selection::balanced;
    A* matrix;                    ///< [T, N] scores, or exp(logits), or affinities
    std::uint8_t* taken;          ///< [T, N] expert_choice: whether the expert takes the token
    order_word<A>* column;        ///< expert_choice: [threads, T] the keys of one expert
    std::int32_t *order, *other;  ///< [threads, T]
    A *rows, *columns;            ///< sinkhorn: [T] and [N]; auction: prices of the places, [N, ceil(T / N)]
    std::int32_t *owners, *sold, *waiting;

    constexpr assign_memory(carver& memory, index_t tokens, int threads)
        : matrix(memory.take<A>(choice || sinkhorn || auction ? tokens * L::choices : 0)),
          taken(memory.take<std::uint8_t>(choice ? tokens * L::choices : 0)),
          column(memory.take<order_word<A>>(choice ? tokens * threads : 0)),
          order(memory.take<std::int32_t>(choice ? tokens * threads : 0)),
          other(memory.take<std::int32_t>(choice ? tokens * threads : 0)),
          rows(memory.take<A>(sinkhorn  ? tokens
                              : auction ? places(tokens)
                                        : 0)),
          columns(memory.take<A>(sinkhorn ? 2 * L::choices : 0)),
          owners(memory.take<std::int32_t>(auction ? places(tokens) : 0)),
          sold(memory.take<std::int32_t>(auction ? L::choices : 0)),
          waiting(memory.take<std::int32_t>(auction ? tokens : 0)) {}

    static constexpr index_t places(index_t tokens) { return ceil_div<index_t>(tokens, L::choices) * L::choices; }
};

/// Each expert takes its best tokens among [first, end).
template <layer_type L>
void take_best_tokens(context<cpu>& ctx, const options<L>& o, index_t first, index_t end,
                      const assign_memory<L>& memory) {
    using A = typename L::accumulate_type;
    constexpr int N = L::choices;
    const index_t count = end - first, tokens_per_thread = count;
    constexpr capacity_config c = L::c.capacity;
    const index_t share = c.rule == capacity_rule::share
                              ? capacity_of(c, o.capacity_factor, count, N, L::top_k, o.training, 0)
                              : count * L::top_k / N;
    const index_t limit = share < count ? share : count;
    const int parts = N < ctx.threads() ? N : ctx.threads();
    ctx.parallel(parts, [&](int part) {
        order_word<A>* column = memory.column + part * tokens_per_thread;
        const range mine = part_of(N, part, parts);
        for (index_t e = mine.begin; e < mine.end; ++e) {
            for (index_t t = 0; t < count; ++t) column[t] = order_key(memory.matrix[(first + t) * N + e]);
            const std::int32_t* best = sort_descending(column, count, memory.order + part * tokens_per_thread,
                                                       memory.other + part * tokens_per_thread);
            for (index_t i = 0; i < count; ++i) memory.taken[(first + best[i]) * N + e] = i < limit ? 1 : 0;
        }
    });
}

template <layer_type L>
void assign_expert_choice(context<cpu>& ctx, const batch<L>& in, const options<L>& o, const routing_view<L>& out,
                          const assign_memory<L>& memory) {
    using A = typename L::accumulate_type;
    constexpr score from = L::c.router.from;
    constexpr int N = L::choices;
    const index_t tokens = out.ids.extent(0);
    // Softmax over tokens is there already: score_columns.
    if constexpr (from != score::softmax_tokens)
        for_each_token(ctx, tokens, [&](index_t t) {
            const A* z = out.logits.row(t);
            A* scores = memory.matrix + t * N;
            if constexpr (from == score::softmax || from == score::softmax_selected) {
                const A m = largest(z, N), total = lane_sum<A>(N, [&](int i) { return softmax_term(z[i], m); });
                for (int e = 0; e < N; ++e) scores[e] = share_of(softmax_term(z[e], m), total);
            } else {
                for (int e = 0; e < N; ++e) scores[e] = score_of<from>(z[e]);
            }
        });
    for_each_choice_group(in, tokens,
                          [&](index_t first, index_t end) { take_best_tokens(ctx, o, first, end, memory); });
    for_each_token(ctx, tokens, [&](index_t t) {
        std::int32_t* ids = out.ids.row(t);
        int used = 0;
        for (int e = 0; e < N; ++e)
            if (memory.taken[t * N + e] != 0) ids[used++] = e;
        for (; used < L::slots; ++used) ids[used] = -1;
    });
}

/// The k largest entries per row of diag(d0) exp(z) diag(d1), balanced by Sinkhorn's iteration.
template <layer_type L>
void assign_sinkhorn(context<cpu>& ctx, const routing_view<L>& out, const assign_memory<L>& memory) {
    using A = typename L::accumulate_type;
    constexpr int N = L::choices;
    // exp must not overflow: beyond this a logit has won its row anyway.
    constexpr A highest = 80, tiny = A(1e-8), close = A(1e-4);
    const index_t tokens = out.ids.extent(0);
    A *d0 = memory.rows, *d1 = memory.columns, *next = memory.columns + N;
    for_each_token(ctx, tokens, [&](index_t t) {
        for (int e = 0; e < N; ++e) {
            const A z = out.logits(t, e);
            memory.matrix[t * N + e] = is_nan(z) ? A(0) : gatefold::exp(z < highest ? z : highest);
        }
    });
    for (int e = 0; e < N; ++e) d1[e] = 1;
    const int parts = N < ctx.threads() ? N : ctx.threads();
    const A one = 1;
    // Float sums may keep the last digits moving: the iteration is cut off where they no longer matter.
    for (int iteration = 0; iteration < 1000; ++iteration) {
        for_each_token(ctx, tokens, [&](index_t t) {
            const A* k = memory.matrix + t * N;
            const A sum = lane_sum<A>(N, [&](int e) { return gatefold::mul(k[e], d1[e]); });
            d0[t] = one / gatefold::mul(static_cast<A>(tokens), sum + tiny);
        });
        ctx.parallel(parts, [&](int part) {
            const range mine = part_of(N, part, parts);
            for (index_t e = mine.begin; e < mine.end; ++e) {
                A sum = 0;
                for (index_t t = 0; t < tokens; ++t) sum = gatefold::fma(memory.matrix[t * N + e], d0[t], sum);
                next[e] = one / gatefold::mul(static_cast<A>(N), sum + tiny);
            }
        });
        const A change = lane_sum<A>(N, [&](int e) { return next[e] > d1[e] ? next[e] - d1[e] : d1[e] - next[e]; }) /
                         static_cast<A>(N);
        for (int e = 0; e < N; ++e) d1[e] = next[e];
        if (!(change > close)) break;
    }
    for_each_token(ctx, tokens, [&](index_t t) {
        order_word<A> best[std::size_t{L::slots}];
        const A* k = memory.matrix + t * N;
        best_of(
            N, L::slots, [&](int e) { return order_key(gatefold::mul(gatefold::mul(k[e], d1[e]), d0[t])); }, best,
            out.ids.row(t));
    });
}

/// One expert per token by an auction: tokens bid for places of experts until each has one.
///
/// The sum of logits lies within T times a 1024th of their range of the best possible. Tokens bid in a fixed order, by
/// one thread.
template <layer_type L>
void assign_balanced(const routing_view<L>& out, const assign_memory<L>& memory) {
    using A = typename L::accumulate_type;
    constexpr int N = L::choices;
    const index_t tokens = out.ids.extent(0), places = ceil_div<index_t>(tokens, N);
    A low = real_format<A>::infinity, high = -low;
    for (index_t t = 0; t < tokens; ++t)
        for (int e = 0; e < N; ++e) {
            const A z = out.logits(t, e);
            if (is_nan(z) || is_infinite(z)) continue;
            low = z < low ? z : low;
            high = z > high ? z : high;
        }
    if (!(low <= high)) low = high = 0;
    const A range_of_logits = high - low, step = range_of_logits > A(0) ? range_of_logits / A(1024) : A(1);
    for (index_t t = 0; t < tokens; ++t)
        for (int e = 0; e < N; ++e) {
            const A z = out.logits(t, e);
            memory.matrix[t * N + e] = z < high ? (z > low ? z : low) : is_nan(z) ? low : high;
        }

    // Per expert a heap of what its places were sold for, the cheapest on top: that one is outbid next.
    for (int e = 0; e < N; ++e) memory.sold[e] = 0;
    for (index_t t = 0; t < tokens; ++t) memory.waiting[t] = static_cast<std::int32_t>(tokens - 1 - t);
    index_t waiting = tokens;
    while (waiting > 0) {
        const std::int32_t token = memory.waiting[--waiting];
        const auto value = [&](int e) {
            const A price = memory.sold[e] < places ? A(0) : memory.rows[e * places];
            return memory.matrix[token * index_t{N} + e] - price;
        };
        int best = 0;
        A first = value(0), second = -real_format<A>::infinity;
        for (int e = 1; e < N; ++e) {
            const A v = value(e);
            if (v > first) {
                second = first;
                first = v;
                best = e;
            } else if (v > second) {
                second = v;
            }
        }
        A* prices = memory.rows + best * places;
        std::int32_t* owners = memory.owners + best * places;
        const bool full = memory.sold[best] == places;
        const A bid = (full ? prices[0] : A(0)) + (first - second) + step;
        index_t at;
        if (full) {
            memory.waiting[waiting++] = owners[0];
            at = 0;
            for (index_t child = 1; child < places; child = 2 * at + 1) {
                if (child + 1 < places && prices[child + 1] < prices[child]) ++child;
                if (!(prices[child] < bid)) break;
                prices[at] = prices[child];
                owners[at] = owners[child];
                at = child;
            }
        } else {
            at = memory.sold[best]++;
            for (; at > 0 && bid < prices[(at - 1) / 2]; at = (at - 1) / 2) {
                prices[at] = prices[(at - 1) / 2];
                owners[at] = owners[(at - 1) / 2];
            }
        }
        prices[at] = bid;
        owners[at] = token;
    }
    for (int e = 0; e < N; ++e)
        for (index_t i = 0; i < memory.sold[e]; ++i) out.ids(memory.owners[e * places + i], 0) = e;
}

/// Fills the ids of all tokens; false where the configuration routes every token by itself in this call.
template <layer_type L>
bool assign_batch(context<cpu>& ctx, const batch<L>& in, const options<L>& o, const routing_view<L>& out,
                  const assign_memory<L>& memory) {
    constexpr selection select = L::c.router.select;
    if constexpr (select == selection::expert_choice) {
        assign_expert_choice(ctx, in, o, out, memory);
        return true;
    } else if constexpr (select == selection::sinkhorn) {
        if (o.training) assign_sinkhorn(ctx, out, memory);
        return o.training;
    } else if constexpr (select == selection::balanced) {
        if (o.training) assign_balanced(out, memory);
        return o.training;
    } else {
        return false;
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
