// The arithmetic of a router for one token: keys, scores, sums, normalisation. Both wings use these functions, so that
// equal logits give equal ids and equal weights everywhere.
//
// Every sum has the order of one warp: lane l takes the terms l, l + 32, ... upwards from +0, then lanes are added in
// halves, 16, 8, 4, 2, 1. A NaN logit counts as -inf; equal infinities share, so that no weight becomes a NaN.
#pragma once

#include <cstdint>
#include <type_traits>

#include <gatefold/config.hpp>
#include <gatefold/core/dtype.hpp>
#include <gatefold/core/math.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// An integer as wide as the key, ordered as selection orders keys; 0 stands for what cannot be chosen.
template <class A>
using order_word = std::conditional_t<std::is_same_v<A, double>, std::uint64_t, std::uint32_t>;

template <class A>
inline constexpr A minus_infinity = -real_format<A>::infinity;

template <class A>
GATEFOLD_HD GATEFOLD_INLINE bool is_nan(A x) {
    return !(x == x);
}
template <class A>
GATEFOLD_HD GATEFOLD_INLINE bool is_infinite(A x) {
    return x == real_format<A>::infinity || x == -real_format<A>::infinity;
}

/// Descending keys are descending words: NaN is -inf, -0 is +0, nothing maps to 0.
template <class A>
GATEFOLD_HD GATEFOLD_INLINE order_word<A> order_key(A key) {
    using word = order_word<A>;
    constexpr word sign = ~(~word{0} >> 1);
    const word bits = bits_as<word>(is_nan(key) ? -real_format<A>::infinity : key + A(0));
    return (bits & sign) != 0 ? static_cast<word>(~bits) : static_cast<word>(bits | sign);
}

/// The least length that is divided by, and the floor of the cosine's temperature.
inline constexpr double least_length = 1e-12, least_temperature = 0.01;
template <class A>
GATEFOLD_HD GATEFOLD_INLINE A length_floor(A length) {
    return length > static_cast<A>(least_length) ? length : static_cast<A>(least_length);
}
template <class A>
GATEFOLD_HD GATEFOLD_INLINE A temperature_floor(A t) {
    return t > static_cast<A>(least_temperature) ? t : static_cast<A>(least_temperature);
}

/// The deviation of the noise of noisy top-k: softplus(x W_n) + 0.01.
template <real V>
GATEFOLD_HD GATEFOLD_INLINE V noise_deviation(V pre) {
    return gatefold::softplus(pre) + constant<V>(static_cast<lane_of<V>>(0.01));
}

/// term(0) + ... + term(n - 1) in the order of a warp.
GATEFOLD_ANY_CALLABLE
template <class A, class Term>
GATEFOLD_HD GATEFOLD_INLINE A lane_sum(int n, Term term) {
    A lane[32];
    for (int l = 0; l < 32; ++l) lane[l] = A(0);
    for (int first = 0; first < n; first += 32)
        for (int i = first; i < n && i < first + 32; ++i) lane[i - first] += term(i);
    // Absent lanes add +0, so small sums skip the halves that are empty.
    for (int half = n > 16 ? 16 : n > 8 ? 8 : n > 4 ? 4 : n > 2 ? 2 : 1; half > 0; half /= 2)
        for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
    return lane[0];
}

/// The largest of n logits; -inf where there is none above.
template <class A>
GATEFOLD_HD GATEFOLD_INLINE A largest(const A* z, int n) {
    A m = -real_format<A>::infinity;
    for (int i = 0; i < n; ++i) m = z[i] > m ? z[i] : m;
    return m;
}

/// e^(z - m) for m the largest logit.
template <class A>
GATEFOLD_HD GATEFOLD_INLINE A softmax_term(A z, A m) {
    return is_nan(z) ? A(0) : z == m ? A(1) : gatefold::exp(z - m);
}

/// A score that depends on one logit alone.
template <score From, class A>
GATEFOLD_HD GATEFOLD_INLINE A score_of(A z) {
    static_assert(From != score::softmax && From != score::softmax_selected);
    if (is_nan(z)) return A(0);
    if constexpr (From == score::sigmoid) return gatefold::sigmoid(z);
    if constexpr (From == score::sqrt_softplus) return gatefold::sqrt(gatefold::softplus(z));
    if constexpr (From == score::relu) return z > A(0) ? z : A(0);
    return z;
}

/// d score / d logit. Zero at NaN and infinite logits, where the score is flat or has no derivative.
template <score From, class A>
GATEFOLD_HD GATEFOLD_INLINE A score_slope(A z) {
    if (is_nan(z) || is_infinite(z)) return A(0);
    if constexpr (From == score::sigmoid) {
        const A s = gatefold::sigmoid(z);
        return mul(s, A(1) - s);
    } else if constexpr (From == score::sqrt_softplus) {
        const A q = gatefold::sqrt(gatefold::softplus(z));
        return q > A(0) ? gatefold::sigmoid(z) / (q + q) : A(0);
    } else if constexpr (From == score::relu) {
        return z > A(0) ? A(1) : A(0);
    } else {
        return A(1);
    }
}

/// x^p and its inverse, for x not negative.
template <class A>
GATEFOLD_HD GATEFOLD_INLINE A power_of(A x, A p) {
    if (p == A(1)) return x;
    if (p == A(2)) return mul(x, x);
    return x > A(0) ? gatefold::exp(mul(p, gatefold::log(x))) : A(0);
}
template <class A>
GATEFOLD_HD GATEFOLD_INLINE A root_of(A x, A p) {
    if (p == A(1)) return x;
    if (p == A(2)) return gatefold::sqrt(x);
    return x > A(0) ? gatefold::exp(gatefold::log(x) / p) : A(0);
}

/// What a weight adds to the sum that weights are divided by: itself, or |v|^p for a norm.
template <renormalise How, class A>
GATEFOLD_HD GATEFOLD_INLINE A sum_term(A v, A power) {
    return How == renormalise::norm ? power_of(v < A(0) ? -v : v, power) : v;
}
/// The derivative of the divisor by one weight, where it is not 0 or 1: sign(v) (|v| / norm)^(p - 1).
template <class A>
GATEFOLD_HD GATEFOLD_INLINE A norm_slope(A v, A divisor, A power) {
    if (divisor == A(0) || v == A(0)) return power == A(1) ? A(1) : A(0);
    const A size = power == A(1) ? A(1) : power_of((v < A(0) ? -v : v) / divisor, power - A(1));
    return v < A(0) ? -size : size;
}

/// The divisor of the weights whose sum is `total`.
template <renormalise How, class A>
GATEFOLD_HD GATEFOLD_INLINE A divisor_of(A total, A epsilon) {
    if constexpr (How == renormalise::sum || How == renormalise::norm) return total;
    if constexpr (How == renormalise::sum_plus) return total + epsilon;
    if constexpr (How == renormalise::max_of) return total > epsilon ? total : epsilon;
    return A(1);
}
/// Its derivative by the sum.
template <renormalise How, class A>
GATEFOLD_HD GATEFOLD_INLINE bool divisor_moves(A total, A epsilon) {
    return How == renormalise::max_of ? !(total < epsilon) : How != renormalise::none;
}

/// v / d; nothing to divide by leaves nothing.
template <class A>
GATEFOLD_HD GATEFOLD_INLINE A share_of(A v, A d) {
    return d == A(0) ? A(0) : v / d;
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER
