// The k largest of a row of keys, largest first, equal ones by index: best_of of their order_key, a register at a time.
//
// Once k are known, a register without a key above the least of them is passed over as a whole. NaN counts as -inf, and
// the comparison of floats passes over exactly what that of words would.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/cpu/simd/row.hpp>
#include <gatefold/moe/router_token.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// The best of the keys that were offered so far; words and ids have room for `wanted`.
template <class A>
struct top_keys {
    using word = order_word<A>;
    word* best;
    std::int32_t* ids;
    int wanted, count = 0;
    A least = minus_infinity<A>;  ///< the last of the best, where all places are taken

    GATEFOLD_INLINE top_keys(word* best_words, std::int32_t* indices, int k)
        : best(best_words), ids(indices), wanted(k) {}

    /// Offers keys[begin, end); indices of successive calls must ascend.
    GATEFOLD_NOINLINE void offer(const A* keys, int begin, int end) {
        constexpr int W = lanes<A>;
        // Copies, which no store through the pointers can change.
        word* const sorted = best;
        std::int32_t* const at = ids;
        const int last = wanted - 1;
        int found = count;
        A bound = least;
        for (int i = begin; i < end; i += W) {
            const int left = end - i < W ? end - i : W;
            std::uint32_t open = (1u << left) - 1u;
            if (found > last) open &= lanes_above(load_or<A>(keys + i, left, A(0)), broadcast<A>(bound));
            for (; open != 0; open &= open - 1) {
                const int index = i + __builtin_ctz(open);
                const word key = order_key(keys[index]);
                if (found > last && key <= sorted[last]) continue;
                int place = found > last ? last : found++;
                for (; place > 0 && sorted[place - 1] < key; --place) {
                    sorted[place] = sorted[place - 1];
                    at[place] = at[place - 1];
                }
                sorted[place] = key;
                at[place] = index;
                if (found > last) bound = is_nan(keys[at[last]]) ? minus_infinity<A> : keys[at[last]];
            }
        }
        count = found;
        least = bound;
    }
    /// Empties the places that nothing was found for.
    GATEFOLD_INLINE void finish() {
        for (int s = count; s < wanted; ++s) ids[s] = -1;
    }
};

/// Writes the ids of the k largest of n keys; -1 behind them where n is less.
template <class A>
GATEFOLD_INLINE void best_keys(const A* keys, int n, int k, order_word<A>* best, std::int32_t* ids) {
    // A few keys are compared before a register of them is full.
    if (n <= lanes<A> / 2) {
        best_of(
            n, k, [&](int i) { return order_key(keys[i]); }, best, ids);
        return;
    }
    top_keys<A> top(best, ids, k);
    top.offer(keys, 0, n);
    top.finish();
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
