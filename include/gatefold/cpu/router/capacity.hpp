// Capacity on the CPU: who keeps a place when more pairs arrive at an expert than it takes.
//
//     ids, weights[T,S] ── per group of tokens: C, order of arrival ──> kept[T*S], weights 0 where dropped
//
// One pass over the pairs in order of arrival, by one thread: the order is what capacity is about.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/cpu/router/logits.hpp>
#include <gatefold/cpu/router/row.hpp>
#include <gatefold/moe/capacity.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Workspace of apply_capacity.
template <layer_type L>
struct capacity_memory {
    using word = order_word<typename L::accumulate_type>;
    static constexpr bool limited = drops(L::c);
    static constexpr bool sorts_pairs = L::c.capacity.keeps == priority::probability,
                          sorts_tokens = L::c.capacity.keeps == priority::importance ||
                                         L::c.capacity.keeps == priority::importance_sum;
    index_t *taken, *arrived, *accepted;  ///< per expert
    word* keys;                           ///< what is sorted: one per token or per pair
    std::int32_t *order, *other;

    constexpr capacity_memory(carver& memory, index_t tokens)
        : taken(memory.take<index_t>(limited ? L::choices : 0)),
          arrived(memory.take<index_t>(limited ? L::choices : 0)),
          accepted(memory.take<index_t>(limited ? L::choices : 0)),
          keys(memory.take<word>(sorted(tokens))),
          order(memory.take<std::int32_t>(sorted(tokens))),
          other(memory.take<std::int32_t>(sorted(tokens))) {}

private:
    static constexpr index_t sorted(index_t tokens) {
        return !limited ? 0 : sorts_pairs ? tokens * L::slots : sorts_tokens ? tokens : 0;
    }
};

/// order = 0 .. n-1 by descending word, equal keys by index: merges runs of doubling length.
template <class Word>
std::int32_t* sort_descending(const Word* keys, index_t n, std::int32_t* order, std::int32_t* other) {
    for (index_t i = 0; i < n; ++i) order[i] = static_cast<std::int32_t>(i);
    for (index_t run = 1; run < n; run *= 2) {
        for (index_t first = 0; first < n; first += 2 * run) {
            const index_t middle = first + run < n ? first + run : n, end = middle + run < n ? middle + run : n;
            index_t a = first, b = middle;
            for (index_t to = first; to < end; ++to)
                other[to] = b == end || (a < middle && keys[order[a]] >= keys[order[b]]) ? order[a++] : order[b++];
        }
        std::int32_t* sorted = other;
        other = order;
        order = sorted;
    }
    return order;
}

/// How important a token is: its best score, or the sum of the scores of its choices.
template <layer_type L, class A = typename L::accumulate_type>
A importance_of(const A* z, const std::int32_t* ids) {
    constexpr score from = L::c.router.from;
    constexpr bool sum = L::c.capacity.keeps == priority::importance_sum;
    if (row_undecided(z, L::choices)) return A(0);
    if constexpr (from == score::softmax || from == score::softmax_selected) {
        const auto [m, total] = row_softmax<A>(z, L::choices);
        if constexpr (!sum) return A(1) / total;
        return lane_sum<A>(L::slots, [&, m = m, total = total](int s) {
            return ids[s] < 0 ? A(0) : softmax_term(z[ids[s]], m) / total;
        });
    } else {
        if constexpr (!sum) return score_of<from>(row_largest(z, L::choices));
        return lane_sum<A>(L::slots, [&](int s) { return ids[s] < 0 ? A(0) : score_of<from>(z[ids[s]]); });
    }
}

/// Lets the pairs of tokens [first, first + count) in by the rule of the configuration.
template <layer_type L>
void fill_group(const options<L>& o, const routing_view<L>& routing, index_t first, index_t count, std::uint8_t* kept,
                const capacity_memory<L>& memory) {
    using A = typename L::accumulate_type;
    constexpr capacity_config c = L::c.capacity;
    constexpr int S = L::slots;
    const auto id_of = [&](index_t t, int s) { return routing.ids(first + t, s); };
    std::uint8_t* keeps = kept + first * S;

    for (int e = 0; e < L::choices; ++e) memory.taken[e] = memory.arrived[e] = 0;
    index_t largest_load = 0;
    for (index_t t = 0; t < count; ++t)
        for (int s = 0; s < S; ++s)
            if (const std::int32_t e = id_of(t, s); e >= 0 && ++memory.arrived[e] > largest_load)
                largest_load = memory.arrived[e];
    const index_t most = capacity_of(c, o.capacity_factor, count, L::choices, L::top_k, o.training, largest_load);

    const auto arrive = [&](index_t pair) {
        const std::int32_t e = id_of(pair / S, static_cast<int>(pair % S));
        keeps[pair] = e >= 0 && memory.taken[e] < most ? 1 : 0;
        if (e >= 0) ++memory.taken[e];
    };
    if constexpr (c.keeps == priority::position) {
        for (index_t pair = 0; pair < count * S; ++pair) arrive(pair);
    } else if constexpr (c.keeps == priority::probability) {
        for (index_t t = 0; t < count; ++t) {
            A v[std::size_t{S}];
            if constexpr (c.renormalise_kept) {
                const A* z = routing.logits.row(first + t);
                chosen_scores<L>(z, routing.ids.row(first + t), v);
                // Weights of a token without a logit above -inf are not divided anew: they are equal shares.
                for (int s = 0; row_undecided(z, L::choices) && s < S; ++s) v[s] = A(1) / A(S);
            }
            for (int s = 0; s < S; ++s)
                memory.keys[t * S + s] = order_key(c.renormalise_kept ? v[s] : routing.weights(first + t, s));
        }
        const std::int32_t* order = sort_descending(memory.keys, count * S, memory.order, memory.other);
        for (index_t i = 0; i < count * S; ++i) arrive(order[i]);
    } else {
        const std::int32_t* order = nullptr;
        if constexpr (capacity_memory<L>::sorts_tokens) {
            for (index_t t = 0; t < count; ++t)
                memory.keys[t] = order_key(importance_of<L>(routing.logits.row(first + t), routing.ids.row(first + t)));
            order = sort_descending(memory.keys, count, memory.order, memory.other);
        }
        // `taken` is where a slot's positions start: behind all choices of earlier slots, or behind those that were
        // kept.
        for (int s = 0; s < S; ++s) {
            for (int e = 0; e < L::choices; ++e) memory.arrived[e] = memory.accepted[e] = 0;
            for (index_t i = 0; i < count; ++i) {
                const index_t t = order ? order[i] : i;
                const std::int32_t e = id_of(t, s);
                const bool fits = e >= 0 && memory.taken[e] + memory.arrived[e] < most;
                keeps[t * S + s] = fits ? 1 : 0;
                if (e >= 0) ++memory.arrived[e];
                if (fits) ++memory.accepted[e];
            }
            for (int e = 0; e < L::choices; ++e)
                memory.taken[e] += c.behind == offset_by::kept ? memory.accepted[e] : memory.arrived[e];
        }
    }
}

/// Bytes that apply_capacity needs.
template <layer_type L>
constexpr std::size_t capacity_scratch_bytes(index_t tokens) {
    carver count(nullptr);
    const capacity_memory<L> memory(count, tokens);
    return count.used();
}

/// Writes `kept` [T * S] and zeroes the weights of dropped pairs.
template <layer_type L>
void apply_capacity(context<cpu>& ctx, const batch<L>& in, const options<L>& o, const routing_view<L>& routing,
                    const view<std::uint8_t, dyn>& kept, std::byte* scratch) {
    using A = typename L::accumulate_type;
    constexpr capacity_config c = L::c.capacity;
    const index_t tokens = routing.ids.extent(0);
    carver arrays(scratch);
    const capacity_memory<L> memory(arrays, tokens);
    const auto fill = [&](index_t first, index_t end) {
        if (end > first) fill_group(o, routing, first, end - first, kept.data(), memory);
    };
    if constexpr (c.shared_by == capacity_group::batch) {
        fill(0, tokens);
    } else if constexpr (c.shared_by == capacity_group::fixed) {
        for (index_t first = 0; first < tokens; first += c.group_size)
            fill(first, first + c.group_size < tokens ? first + c.group_size : tokens);
    } else {
        const index_t n = in.sequence_starts.extent(0);
        for (index_t i = 0; i < n; ++i) fill(in.sequence_starts[i], i + 1 < n ? in.sequence_starts[i + 1] : tokens);
    }

    index_t dropped = 0;
    for (index_t t = 0; t < tokens; ++t) {
        const std::int32_t* ids = routing.ids.row(t);
        const std::uint8_t* keeps = kept.data() + t * L::slots;
        A* weights = routing.weights.row(t);
        for (int s = 0; s < L::slots; ++s)
            if (ids[s] >= 0 && keeps[s] == 0) {
                ++dropped;
                weights[s] = 0;
            }
        if constexpr (c.renormalise_kept) {
            const A* z = routing.logits.row(t);
            if (row_undecided(z, L::choices)) continue;
            A v[std::size_t{L::slots}];
            chosen_scores<L>(z, ids, v);
            weigh_token<L>(
                v, ids, o.scale, o.epsilon, static_cast<const A*>(nullptr), [&](int s) { return keeps[s] != 0; },
                weights);
        }
    }
    ctx.report().dropped += dropped;
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
