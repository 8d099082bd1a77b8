// Selection limited to groups of experts on the CPU.
//
//     keys[N] ── per group: its largest, or the sum of its best ──> group keys ── the best groups ──> top-k of their
//     keys
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/cpu/router/top_keys.hpp>
#include <gatefold/cpu/simd/number.hpp>
#include <gatefold/moe/router_token.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// The two largest of n keys, NaN left out; -inf where there are less.
template <class A>
struct two_largest {
    A first, second;

    GATEFOLD_INLINE two_largest(const A* keys, int n) {
        using N = number<vec<A>>;
        constexpr int W = lanes<A>;
        vec<A> one = broadcast<A>(minus_infinity<A>), two = one;
        for (int i = 0; i < n; i += W) {
            const vec<A> key = load_or<A>(keys + i, n - i, minus_infinity<A>);
            two = N::greater(N::lesser(one, key), two);
            one = N::greater(key, one);
        }
        A high[std::size_t{W}], low[std::size_t{W}];
        store(high, one);
        store(low, two);
        for (int half = W / 2; half > 0; half /= 2)
            for (int l = 0; l < half; ++l) {
                const A a = high[l], b = high[l + half], larger = low[l + half] > low[l] ? low[l + half] : low[l];
                const A lesser = b > a ? a : b;
                low[l] = lesser > larger ? lesser : larger;
                high[l] = b > a ? b : a;
            }
        first = high[0];
        second = low[0];
    }
};

/// What a group is judged by, from its keys.
template <layer_type L, class A = typename L::accumulate_type>
GATEFOLD_INLINE A key_of_group(const A* keys) {
    constexpr router_config r = L::c.router;
    constexpr int n = L::choices / r.groups;
    if constexpr (r.group_by == group_key::share_sum) {
        order_word<A> best[std::size_t{group_terms(L::c)}];
        std::int32_t members[std::size_t{group_terms(L::c)}];
        top_keys<A> top(best, members, group_terms(L::c));
        top.offer(keys, 0, n);
        A sum = 0;
        for (int j = 0; j < top.count; ++j) {
            const A key = keys[members[j]];
            sum += is_nan(key) ? minus_infinity<A> : key;
        }
        return sum;
    } else {
        const two_largest<A> top(keys, n);
        return r.group_by == group_key::top2_sum ? top.first + top.second : top.first;
    }
}

/// The k largest keys of the groups that are kept; where others count as zero, their keys are overwritten with it.
template <layer_type L, class A = typename L::accumulate_type>
void choose_in_groups(A* keys, order_word<A>* best, std::int32_t* ids) {
    constexpr router_config r = L::c.router;
    constexpr int n = L::choices / r.groups;
    A group_keys[std::size_t{r.groups}];
    for (int q = 0; q < r.groups; ++q) group_keys[q] = key_of_group<L>(keys + q * n);
    order_word<A> group_best[std::size_t{r.kept_groups}];
    std::int32_t kept[std::size_t{r.kept_groups}];
    best_keys(group_keys, r.groups, r.kept_groups, group_best, kept);
    bool is_kept[std::size_t{r.groups}] = {};
    for (int j = 0; j < r.kept_groups; ++j) is_kept[kept[j]] = true;
    top_keys<A> top(best, ids, L::top_k);
    for (int q = 0; q < r.groups; ++q) {
        if (!is_kept[q]) {
            if constexpr (r.masked == group_mask::minus_infinity) continue;
            for (int i = q * n; i < (q + 1) * n; ++i) keys[i] = 0;
        }
        top.offer(keys, q * n, (q + 1) * n);
    }
    top.finish();
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
