// Steps on whole rows that several stages share: dot products, column sums, ordered sums over a token's experts.
//
// Every sum has one order on every tier and for any number of threads: a dot product keeps 16 partial sums and adds
// them in a fixed tree; sums over rows go upwards.
#pragma once

#include <cstdint>

#include <gatefold/core/context.hpp>
#include <gatefold/cpu/gemm/products.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Σ a[i] · b[i] with 16 partial sums, lane i % 16 taking element i, added as ((0+8)+(4+12))+… in halves.
template <class A, class T, class U>
A dot(const T* a, const U* b, index_t n) {
    constexpr int width = lanes<A>, registers = 16 / width;
    vec<A> sums[std::size_t{registers}];
    for (int j = 0; j < registers; ++j) sums[j] = zeros<A>();
    index_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < registers; ++j)
            sums[j] = fma(load<A>(a + i + j * width), load<A>(b + i + j * width), sums[j]);
    for (int j = 0; j < registers && i + j * width < n; ++j) {
        const index_t at = i + j * width;
        sums[j] = fma(load_first<A>(a + at, n - at), load_first<A>(b + at, n - at), sums[j]);
    }
    A lane[16];
    for (int j = 0; j < registers; ++j) store(lane + j * width, sums[j]);
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
    return lane[0];
}

/// to[i] = fma(factor, from[i], to[i]).
template <class A, class T>
GATEFOLD_INLINE void add_scaled(A* to, A factor, const T* from, index_t n) {
    const vec<A> f = broadcast<A>(factor);
    for (index_t i = 0; i < n; i += lanes<A>)
        store_first(to + i, fma(f, load_first<A>(from + i, n - i), load_first<A>(to + i, n - i)), n - i);
}

/// The part of [0, total) that belongs to `part` of `parts`.
struct range {
    index_t begin, end;
};
GATEFOLD_INLINE range part_of(index_t total, int part, int parts) {
    return {share(total, part, parts), share(total, part + 1, parts)};
}

/// out_e[j] = Σ over the rows of group e of row[j], upwards; groups without rows get zeros (nothing when accumulating).
/// Threads share the columns.
template <class A, class T>
void column_sums(context<cpu>& ctx, const grouping& groups, const rows_of<T>& rows, index_t columns, A* out,
                 bool accumulate) {
    const index_t blocks = ceil_div<index_t>(columns, lanes<A>);
    const int parts = static_cast<int>(blocks < ctx.threads() ? blocks : ctx.threads());
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(blocks, part, parts);
        for (int e = 0; e < groups.experts; ++e)
            for (index_t block = mine.begin; block < mine.end; ++block) {
                const index_t j = block * lanes<A>, left = columns - j;
                A* to = out + e * columns + j;
                vec<A> sum = accumulate ? load_first<A>(to, left) : zeros<A>();
                for (index_t r = groups.begin(e); r < groups.end(e); ++r) {
                    const vec<A> factor = broadcast<A>(rows.factor ? static_cast<A>(rows.factor_of(r)) : A{1});
                    sum = fma(factor, load_first<A>(rows.row(r) + j, left), sum);
                }
                store_first(to, sum, left);
            }
    });
}

/// The slots of one token that reached an expert, in ascending expert order.
template <int Slots>
struct ordered_slots {
    int count = 0;
    int slot[std::size_t{Slots}];

    /// From the token's experts, or its places in a plan: rows are numbered expert by expert. Equal ones stay in the
    /// order of slots.
    explicit ordered_slots(const std::int32_t* keys) {
        for (int s = 0; s < Slots; ++s) {
            if (keys[s] < 0) continue;
            int at = count++;
            if constexpr (Slots > 1)
                for (; at > 0 && keys[slot[at - 1]] > keys[s]; --at) slot[at] = slot[at - 1];
            slot[at] = s;
        }
    }
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
