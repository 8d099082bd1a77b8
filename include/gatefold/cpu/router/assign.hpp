// Routers on the CPU that look at all tokens of a batch before they give one its experts.
//
//     expert_choice   cpu/router/choice.hpp
//     sinkhorn        exp(logits) ── rows and columns scaled in turn until they are balanced ──> keys ──> top-k
//     balanced        logits ── auction ──> one expert per token, ceil(T/N) tokens per expert at most
//
// None of them is causal. The last two act in training; at inference a token is routed by its own logits.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/cpu/router/choice.hpp>
#include <gatefold/cpu/router/choose.hpp>
#include <gatefold/cpu/router/logits.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Workspace of an assignment over the batch.
template <layer_type L>
struct assign_memory {
    using A = typename L::accumulate_type;
    static constexpr selection select = L::c.router.select;
    static constexpr bool choice = select == selection::expert_choice, sinkhorn = select == selection::sinkhorn,
                          auction = select == selection::balanced;
    A* matrix;            ///< [T, N] scores, or exp(logits), or affinities
    std::uint8_t* taken;  ///< [T, N] expert_choice: whether the expert takes the token
    A *rows, *columns;    ///< sinkhorn: [T] and [N]; auction: prices of the places, [N, ceil(T / N)]
    std::int32_t *owners, *sold, *waiting;

    constexpr assign_memory(carver& memory, index_t tokens)
        : matrix(memory.take<A>(choice || sinkhorn || auction ? tokens * L::choices : 0)),
          taken(memory.take<std::uint8_t>(choice ? tokens * L::choices : 0)),
          rows(memory.take<A>(sinkhorn  ? tokens
                              : auction ? places(tokens)
                                        : 0)),
          columns(memory.take<A>(sinkhorn ? 2 * L::choices : 0)),
          owners(memory.take<std::int32_t>(auction ? places(tokens) : 0)),
          sold(memory.take<std::int32_t>(auction ? L::choices : 0)),
          waiting(memory.take<std::int32_t>(auction ? tokens : 0)) {}

    static constexpr index_t places(index_t tokens) { return ceil_div<index_t>(tokens, L::choices) * L::choices; }
};

/// next[e] = 1 / (N Σ_t k[t, e] d0[t]) for columns [begin, end), the sums upwards.
template <int N, class A>
GATEFOLD_NOINLINE void balance_columns(const A* k, const A* d0, index_t tokens, index_t begin, index_t end, A tiny,
                                       A* next) {
    // As many chains side by side as hide their latency.
    constexpr int W = lanes<A>, together = 4;
    for (index_t e = begin; e < end; e += together * W) {
        vec<A> sums[std::size_t{together}];
        for (int j = 0; j < together; ++j) sums[j] = zeros<A>();
        for (index_t t = 0; t < tokens; ++t)
            for (int j = 0; j < together; ++j)
                sums[j] = number<vec<A>>::fma(load_first<A>(k + t * N + e + j * W, N - e - j * W), broadcast<A>(d0[t]),
                                              sums[j]);
        for (int j = 0; j < together; ++j) {
            const vec<A> column = mul(broadcast<A>(static_cast<A>(N)), sums[j] + broadcast<A>(tiny));
            const index_t at = e + j * W, left = (end < N ? end : N) - at;
            store_first(next + at, broadcast<A>(1) / column, left);
        }
    }
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
        const auto power = [&](vec<A> z) {
            using number_of = number<vec<A>>;
            const vec<A> raised = gatefold::exp(number_of::lesser(z, broadcast<A>(highest)));
            return number_of::select(z == z, raised, zeros<A>());
        };
        map<A>(N, power, memory.matrix + t * N, out.logits.row(t));
    });
    for (int e = 0; e < N; ++e) d1[e] = 1;
    constexpr int blocks = ceil_div(N, lanes<A>);
    const int parts = blocks < ctx.threads() ? blocks : ctx.threads();
    const A one = 1;
    // Float sums may keep the last digits moving: the iteration is cut off where they no longer matter.
    for (int iteration = 0; iteration < 1000; ++iteration) {
        for_each_token(ctx, tokens, [&](index_t t) {
            const A* k = memory.matrix + t * N;
            const A sum =
                row_sum<A>(N, [&](int e) { return mul(load_first<A>(k + e, N - e), load_first<A>(d1 + e, N - e)); });
            d0[t] = one / gatefold::mul(static_cast<A>(tokens), sum + tiny);
        });
        ctx.parallel(parts, [&](int part) {
            const range mine = part_of(blocks, part, parts);
            balance_columns<N>(memory.matrix, d0, tokens, mine.begin * lanes<A>, mine.end * lanes<A>, tiny, next);
        });
        const auto moved = [&](int e) {
            const vec<A> to = load_first<A>(next + e, N - e), from = load_first<A>(d1 + e, N - e);
            return number<vec<A>>::select(from < to, to - from, from - to);
        };
        const A change = row_sum<A>(N, moved) / static_cast<A>(N);
        for (int e = 0; e < N; ++e) d1[e] = next[e];
        if (!(change > close)) break;
    }
    for_each_token(ctx, tokens, [&](index_t t) {
        order_word<A> best[std::size_t{L::slots}];
        A* k = memory.matrix + t * N;
        const vec<A> row = broadcast<A>(d0[t]);
        map<A>(
            N, [&](vec<A> v, vec<A> column) { return mul(mul(v, column), row); }, k, k, d1);
        best_keys(k, N, L::slots, best, out.ids.row(t));
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
