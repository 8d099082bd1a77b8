// One row of logits on vectors: the sums and keys of moe/router_math.hpp and moe/router_token.hpp, with their bits.
//
//     z[N] ── largest, Σ e^(z - m) in the order of a warp ──> scores            z[N] ── score, bias ──> keys[N]
//
// A warp's 32 lanes are a few registers here. Behind the end of a row stands a NaN, which counts as a logit of -inf and
// adds +0 to a sum.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/cpu/simd/number.hpp>
#include <gatefold/cpu/simd/row.hpp>
#include <gatefold/moe/router_token.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// A register of logits from `at` on, of n in the row.
template <class A>
GATEFOLD_INLINE vec<A> load_logits(const A* z, int at, int n) {
    return load_or<A>(z + at, n - at, real_format<A>::not_a_number);
}

/// The largest of n logits; -inf where there is none above.
template <class A>
GATEFOLD_NOINLINE A row_largest(const A* z, int n) {
    constexpr int W = lanes<A>;
    vec<A> m = broadcast<A>(minus_infinity<A>);
    for (int i = 0; i < n; i += W) m = number<vec<A>>::greater(load_logits(z, i, n), m);
    A lane[std::size_t{W}];
    store(lane, m);
    for (int half = W / 2; half > 0; half /= 2)
        for (int l = 0; l < half; ++l) lane[l] = lane[l + half] > lane[l] ? lane[l + half] : lane[l];
    return lane[0];
}

/// Whether no logit of the row is above -inf: then the lowest experts share.
template <class A>
GATEFOLD_INLINE bool row_undecided(const A* z, int n) {
    return !(row_largest(z, n) > minus_infinity<A>);
}

/// term(i), the numbers of the register that begins at i, for every register of the row, added up in the order of
/// lane_sum.
template <class A, class Term>
GATEFOLD_INLINE A row_sum(int n, Term term) {
    constexpr int W = lanes<A>, registers = 32 / W;
    vec<A> sums[std::size_t{registers}];
    for (int j = 0; j < registers; ++j) sums[j] = zeros<A>();
    for (int first = 0; first < n; first += 32)
        for (int j = 0; j < registers; ++j)
            if (first + j * W < n) sums[j] = add(sums[j], term(first + j * W));
    alignas(64) A lane[32];
    for (int j = 0; j < registers; ++j) store(lane + j * W, sums[j]);
    // Absent lanes hold +0.
    for (int half = n > 16 ? 16 : n > 8 ? 8 : n > 4 ? 4 : n > 2 ? 2 : 1; half > 0; half /= 2)
        for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
    return lane[0];
}

/// softmax_term of every lane.
template <class A>
GATEFOLD_INLINE vec<A> softmax_terms(vec<A> z, vec<A> m) {
    using N = number<vec<A>>;
    const vec<A> terms = N::select(z == m, broadcast<A>(1), gatefold::exp(z - m));
    return N::select(z == z, terms, zeros<A>());
}

/// The largest logit of a row and the sum of its exponentials.
template <class A>
struct row_softmax {
    A m, total;

    GATEFOLD_NOINLINE row_softmax(const A* z, int n) : m(row_largest(z, n)) {
        total = row_sum<A>(n, [&](int i) { return softmax_terms(load_logits(z, i, n), broadcast<A>(m)); });
    }
};

/// score_of of every lane.
template <score From, class A>
GATEFOLD_INLINE vec<A> scores_of(vec<A> z) {
    using N = number<vec<A>>;
    vec<A> s = z;
    if constexpr (From == score::sigmoid) s = gatefold::sigmoid(z);
    if constexpr (From == score::sqrt_softplus) s = gatefold::sqrt(gatefold::softplus(z));
    if constexpr (From == score::relu) s = N::greater(z, zeros<A>());
    return N::select(z == z, s, zeros<A>());
}

/// The selection keys of one token: key_of_logit of every expert.
template <layer_type L, class A = typename L::accumulate_type>
void row_keys(const A* z, const A* selection_bias, A* keys) {
    using traits = router_traits<L>;
    using number_of = number<vec<A>>;
    constexpr router_config r = L::c.router;
    constexpr int n = L::choices, W = lanes<A>;
    vec<A> m = zeros<A>(), total = m;
    if constexpr (traits::softmax_keys) {
        const row_softmax<A> sum(z, n);
        m = broadcast<A>(sum.m);
        total = broadcast<A>(sum.total);
    }
    for (int i = 0; i < n; i += W) {
        const vec<A> logits = load_logits(z, i, n);
        vec<A> key = logits;
        if constexpr (traits::softmax_keys)
            key = softmax_terms(logits, m) / total;
        else if constexpr (!selects_by_logit(L::c))
            key = scores_of<r.from>(logits);
        if constexpr (!selects_by_logit(L::c) && r.scores_in == precision::storage)
            key = rounded_to<typename L::value_type>(key);
        if constexpr (r.selection_bias != key_bias::none) key = add(key, load_first<A>(selection_bias + i, n - i));
        store_first(keys + i, number_of::select(logits == logits, key, broadcast<A>(minus_infinity<A>)), n - i);
    }
}

/// The unbiased scores of the chosen, before they are divided by their sum; zero in empty slots and for experts that
/// return nothing. Where only ratios are asked these are exponentials.
template <layer_type L, class A = typename L::accumulate_type>
GATEFOLD_NOINLINE void chosen_scores(const A* z, const std::int32_t* ids, A* v) {
    using traits = router_traits<L>;
    constexpr router_config r = L::c.router;
    constexpr int S = L::slots;
    A m = minus_infinity<A>, total = 1;
    if constexpr (traits::over_chosen) {
        for (int s = 0; s < S; ++s)
            if (ids[s] >= 0 && z[ids[s]] > m) m = z[ids[s]];
        if constexpr (!traits::ratios_only)
            total = lane_sum<A>(S, [&](int s) { return ids[s] < 0 ? A(0) : softmax_term(z[ids[s]], m); });
    } else if constexpr (traits::whole_softmax) {
        const row_softmax<A> sum(z, L::choices);
        m = sum.m;
        total = sum.total;
    }
    for (int s = 0; s < S; ++s) {
        const std::int32_t e = ids[s];
        const bool returns = e >= 0 && (L::choices == traits::first_zero || e < traits::first_zero);
        v[s] = returns ? score_of_logit<L>(z[e], m, total) : A(0);
    }
    // Infinite scores share equally once they are divided by their sum.
    if constexpr (traits::unbounded_score && r.renorm != renormalise::none) {
        bool infinite = false;
        for (int s = 0; s < S; ++s) infinite = infinite || v[s] == real_format<A>::infinity;
        for (int s = 0; infinite && s < S; ++s) v[s] = v[s] == real_format<A>::infinity ? A(1) : A(0);
    }
}

/// Counts what is unusual in the logits of one token; whether they leave it undecided.
template <class A, class Report>
GATEFOLD_INLINE bool count_unusual(const A* z, int choices, Report& report) {
    constexpr int W = lanes<A>;
    const vec<A> infinity = broadcast<A>(real_format<A>::infinity), least = broadcast<A>(minus_infinity<A>);
    std::uint32_t decides = 0;
    for (int i = 0; i < choices; i += W) {
        const vec<A> logits = load_logits(z, i, choices);
        const int left = choices - i < W ? choices - i : W;
        decides |= lanes_above(logits, least);
        if (lanes_above(infinity, magnitude(logits)) == (1u << left) - 1u) continue;
        for (int e = i; e < i + left; ++e) {
            report.nan_logits += is_nan(z[e]) ? 1 : 0;
            report.infinite_logits += is_infinite(z[e]) ? 1 : 0;
        }
    }
    report.undecided += decides == 0 ? 1 : 0;
    return decides == 0;
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
