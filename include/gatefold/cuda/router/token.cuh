// The choice of one token's experts by one warp.
//
//     logits[N] ── keys ── groups ──> S rounds of (largest word, lowest expert) ──> ids[S]
//
// The arithmetic is that of moe/router_math.hpp, whose sums have the order of a warp: ids are those of the CPU wing.
#pragma once

#include <gatefold/cuda/router/policy.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// The largest word of the warp and the lowest index that has it; -1 where all are 0.
template <std::size_t Each, class Word>
__device__ __forceinline__ int best_of_warp(const Word (&words)[Each], int lane) {
    Word own = 0;
    int at = 0;
    GATEFOLD_UNROLL
    for (int r = 0; r < int{Each}; ++r)
        if (words[r] > own) {
            own = words[r];
            at = r;
        }
    const Word best = warp_max(own);
    if (best == 0) return -1;
    return static_cast<int>(
        __reduce_min_sync(all_lanes, own == best ? static_cast<unsigned>(at * 32 + lane) : all_lanes));
}

/// Takes the `count` best experts into the slots from `first` on.
template <class P, class Word>
__device__ __forceinline__ void take_best(token_state<P>& t, Word (&words)[token_state<P>::lanes_of_logits], int first,
                                          int count) {
    for (int s = first; s < first + count; ++s) {
        const int e = best_of_warp(words, t.lane);
        GATEFOLD_UNROLL
        for (int r = 0; r < int{token_state<P>::lanes_of_logits}; ++r)
            if (r * 32 + t.lane == e) words[r] = 0;
        GATEFOLD_UNROLL
        for (int q = 0; q < int{token_state<P>::lanes_of_slots}; ++q)
            if (q * 32 + t.lane == s) t.ids[q] = e;
    }
}

/// The sum of the `Terms` largest keys among `count` experts from `first` on, largest first.
template <int Terms, class P, class Word>
__device__ __forceinline__ typename P::accumulate_type sum_of_best(const token_state<P>& t,
                                                                   const Word (&words)[token_state<P>::lanes_of_logits],
                                                                   int first, int count) {
    using A = typename P::accumulate_type;
    constexpr int each = token_state<P>::lanes_of_logits;
    Word left[std::size_t{each}];
    GATEFOLD_UNROLL
    for (int i = 0; i < each; ++i) {
        const int e = i * 32 + t.lane - first;
        left[i] = e >= 0 && e < count ? words[i] : Word(0);
    }
    A sum = 0;
    for (int j = 0; j < Terms; ++j) {
        const int e = best_of_warp(left, t.lane);
        Word own = 0;
        GATEFOLD_UNROLL
        for (int i = 0; i < each; ++i)
            if (i * 32 + t.lane == e) {
                own = left[i];
                left[i] = 0;
            }
        if (e >= 0) sum += key_of<A>(warp_max(own));
    }
    return sum;
}

/// Experts outside the kept groups get the word of key 0, or 0.
template <class P, class Word>
__device__ __forceinline__ void limit_groups(const token_state<P>& t, Word (&words)[token_state<P>::lanes_of_logits]) {
    using A = typename P::accumulate_type;
    constexpr router_config r = P::c.router;
    constexpr int each = token_state<P>::lanes_of_logits, per = P::choices / r.groups;
    constexpr std::size_t group_lanes = (r.groups + 31) / 32;
    Word groups[group_lanes] = {};
    for (int g = 0; g < r.groups; ++g) {
        Word result;
        if constexpr (r.group_by == group_key::share_sum) {
            result = order_key(sum_of_best<group_terms(P::c)>(t, words, g * per, per));
        } else {
            Word first = 0, second = 0;
            GATEFOLD_UNROLL
            for (int i = 0; i < each; ++i) {
                const int e = i * 32 + t.lane;
                const Word word = e < P::choices && e / per == g ? words[i] : Word(0);
                if (word > first) {
                    second = first;
                    first = word;
                } else if (word > second) {
                    second = word;
                }
            }
            result = warp_max(first);
            if constexpr (r.group_by == group_key::top2_sum) {
                const unsigned owners = __ballot_sync(all_lanes, first == result);
                const int owner = __ffs(static_cast<int>(owners)) - 1;
                const Word next = warp_max(t.lane == owner ? second : first);
                result = order_key(key_of<A>(result) + key_of<A>(next));
            }
        }
        GATEFOLD_UNROLL
        for (int q = 0; q < int{group_lanes}; ++q)
            if (q * 32 + t.lane == g) groups[q] = result;
    }
    unsigned kept[group_lanes] = {};
    for (int i = 0; i < r.kept_groups; ++i) {
        const int g = best_of_warp(groups, t.lane);
        GATEFOLD_UNROLL
        for (int q = 0; q < int{group_lanes}; ++q) {
            if (q * 32 + t.lane == g) groups[q] = 0;
            if (g / 32 == q) kept[q] |= 1u << (g % 32);
        }
    }
    GATEFOLD_UNROLL
    for (int i = 0; i < each; ++i) {
        const int e = i * 32 + t.lane, g = e / per;
        bool is_kept = false;
        GATEFOLD_UNROLL
        for (int q = 0; q < int{group_lanes}; ++q)
            is_kept = is_kept || (g / 32 == q && (kept[q] >> (g % 32) & 1u) != 0);
        if (e < P::choices && !is_kept) words[i] = r.masked == group_mask::zero ? order_key(A(0)) : Word(0);
    }
}

/// The words that selection compares.
template <class P, class Bias, class Word>
__device__ __forceinline__ void order_words(const token_state<P>& t, const Bias* selection_bias, const route_numbers& n,
                                            index_t token, Word (&words)[token_state<P>::lanes_of_logits]) {
    using A = typename P::accumulate_type;
    using traits = router_traits<P>;
    constexpr router_config r = P::c.router;
    [[maybe_unused]] A total = 1;
    if constexpr (traits::softmax_keys && r.select == selection::top_k)
        total = t.over_logits([&](int i) { return softmax_term(t.z[i], t.largest); });
    GATEFOLD_UNROLL
    for (int i = 0; i < int{token_state<P>::lanes_of_logits}; ++i) {
        const int e = i * 32 + t.lane;
        words[i] = 0;
        if (e >= P::choices) continue;
        A key = t.z[i];
        if constexpr (r.select == selection::top_k) {
            key = key_of_logit<P>(t.z[i], t.largest, total, selection_bias, e);
        } else if constexpr (r.select == selection::sampled) {
            if (n.training)
                key =
                    gatefold::fma(n.draw.template gumbel<A>(purpose::sampling, token, e), static_cast<A>(n.noise), key);
        } else if constexpr (r.select == selection::positive) {
            if (!(key > A(0))) continue;
        }
        words[i] = order_key(key);
        if constexpr (r.select == selection::uniform)
            words[i] = static_cast<Word>((n.draw.bits(purpose::sampling, token, e) >> 1) + 1u);
    }
}

/// Chooses the experts of a token that has a logit above -inf.
template <class P, class Bias>
__device__ __forceinline__ void choose(token_state<P>& t, const Bias* selection_bias, const route_numbers& n,
                                       index_t token) {
    using A = typename P::accumulate_type;
    constexpr router_config r = P::c.router;
    order_word<A> words[token_state<P>::lanes_of_logits];
    order_words(t, selection_bias, n, token, words);
    if constexpr (r.groups > 1) limit_groups(t, words);
    if constexpr (r.second == second_expert::sampled) {
        if (n.training) {
            take_best(t, words, 0, 1);
            const std::int32_t best = t.slot(t.ids, 0);
            order_words(t, selection_bias, n, token, words);
            GATEFOLD_UNROLL
            for (int i = 0; i < int{token_state<P>::lanes_of_logits}; ++i) {
                const int e = i * 32 + t.lane;
                if (e < P::choices)
                    words[i] =
                        e == best
                            ? order_word<A>(0)
                            : order_key(key_of<A>(words[i]) + n.draw.template gumbel<A>(purpose::gumbel, token, e));
            }
            take_best(t, words, 1, 1);
            return;
        }
    }
    take_best(t, words, 0, P::slots);
    if constexpr (r.select == selection::top_p) {
        const A total = t.over_logits([&](int i) { return softmax_term(t.z[i], t.largest); });
        // The sum runs over the slots upwards: every lane forms it.
        A sum = 0;
        for (int s = 0; s < P::slots; ++s) {
            const std::int32_t e = t.slot(t.ids, s);
            const bool ends = !(sum < static_cast<A>(n.threshold));
            A z = 0;
            GATEFOLD_UNROLL
            for (int i = 0; i < int{token_state<P>::lanes_of_logits}; ++i) z = e / 32 == i ? t.z[i] : z;
            z = __shfl_sync(all_lanes, z, e & 31);
            if (!ends) sum += softmax_term(z, t.largest) / total;
            GATEFOLD_UNROLL
            for (int q = 0; q < int{token_state<P>::lanes_of_slots}; ++q)
                if (ends && q * 32 + t.lane == s) t.ids[q] = -1;
        }
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
