// The activation between the two projections of an expert, forward and backward, on scalars and on vectors.
//
//     pre-activations gate, up ── activate<A> ──> a        da ── activate_backward<A> ──> d_gate, d_up
//
// Chains of core/math.hpp in the precision of V (float or double; storage types are widened before and rounded after),
// so the bits are those of every tier and of CUDA. A NaN argument gives a NaN. An infinite one gives what the formula
// gives in floating point: silu and gelu of +inf are +inf, of -inf a NaN, and their gradients there may be NaNs.
#pragma once

#include <type_traits>

#include <gatefold/config.hpp>
#include <gatefold/core/macros.hpp>
#include <gatefold/core/math.hpp>

namespace gatefold::inline v0 {

namespace detail {

/// As constants, so that device code needs no host function.
template <activation A>
inline constexpr bool gated_activation = is_gated(A);
template <activation A>
inline constexpr bool limited_activation = is_limited(A);

}  // namespace detail

/// The gradients of the two pre-activations of a gated activation.
template <class V>
struct gated_gradient {
    V d_gate, d_up;
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// The function of the gate (or of the only projection) and its derivative.
template <class V>
struct value_and_slope {
    V value, slope;
};

/// x / (1 + e^(-t)) = x s(t): one division, and 0 where e^(-t) overflows.
template <class V>
GATEFOLD_HD GATEFOLD_INLINE V times_sigmoid(V x, V t) {
    return number<V>::divide(x, constant<V>(1) + exp(number<V>::negate(t)));
}

/// d/dx of x s(t(x)) = s + x s (1 - s) t', for s = s(t).
template <class V>
GATEFOLD_HD GATEFOLD_INLINE V slope_of_times_sigmoid(V s, V x_slope) {
    return number<V>::fma(mul(x_slope, s), constant<V>(1) - s, s);
}

/// s in gelu_tanh(x) = x s(t): (1 + tanh(y)) / 2 = s(2 y), with 2 y = t = x (c + c 0.044715 x^2), c = 2 sqrt(2 / pi).
template <class V>
struct gelu_tanh_constants {
    static constexpr lane_of<V> linear = lane_of<V>(1.5957691216057307), cubic = lane_of<V>(0.07135481627260025);
};

/// phi(x) for the activations that are phi(x), or phi(gate) up.
template <activation A, class V>
GATEFOLD_HD GATEFOLD_INLINE V activation_value(V x) {
    using N = number<V>;
    if constexpr (A == activation::silu || A == activation::swiglu)
        return times_sigmoid(x, x);
    else if constexpr (A == activation::gelu_tanh || A == activation::geglu_tanh) {
        using c = gelu_tanh_constants<V>;
        return times_sigmoid(x, mul(x, N::fma(mul(x, x), constant<V>(c::cubic), constant<V>(c::linear))));
    } else if constexpr (A == activation::gelu_erf || A == activation::geglu_erf) {
        const V half = constant<V>(lane_of<V>(0.5));
        return mul(x, N::fma(half, erf(mul(x, constant<V>(lane_of<V>(0.70710678118654752)))), half));
    } else if constexpr (A == activation::relu || A == activation::reglu)
        return N::greater(constant<V>(0), x);
    else if constexpr (A == activation::relu_squared) {
        const V positive = N::greater(constant<V>(0), x);
        return mul(positive, positive);
    } else {
        static_assert(A == activation::identity || A == activation::bilinear);
        return x;
    }
}

template <activation A, class V>
GATEFOLD_HD GATEFOLD_INLINE value_and_slope<V> activation_slope(V x) {
    using N = number<V>;
    const V zero = constant<V>(0), one = constant<V>(1);
    if constexpr (A == activation::silu || A == activation::swiglu) {
        const V s = sigmoid(x);
        return {mul(x, s), slope_of_times_sigmoid(s, x)};
    } else if constexpr (A == activation::gelu_tanh || A == activation::geglu_tanh) {
        using c = gelu_tanh_constants<V>;
        // Beyond 30, s is 0 or 1 and the slope with it; the bound keeps infinite products of a zero away.
        const V bound = constant<V>(30), b = N::greater(N::negate(bound), N::lesser(bound, x)), square = mul(b, b);
        const V s = sigmoid(mul(b, N::fma(square, constant<V>(c::cubic), constant<V>(c::linear))));
        const V b_slope = mul(b, N::fma(square, constant<V>(3 * c::cubic), constant<V>(c::linear)));
        return {mul(x, s), slope_of_times_sigmoid(s, b_slope)};
    } else if constexpr (A == activation::gelu_erf || A == activation::geglu_erf) {
        const V half = constant<V>(lane_of<V>(0.5)), density_of_zero = constant<V>(lane_of<V>(0.39894228040143268));
        const V below = N::fma(half, erf(mul(x, constant<V>(lane_of<V>(0.70710678118654752)))), half);
        const V density = mul(density_of_zero, exp(mul(mul(N::negate(half), x), x)));
        return {mul(x, below), N::fma(x, density, below)};
    } else if constexpr (A == activation::relu || A == activation::reglu) {
        const V positive = N::greater(zero, x);
        return {positive, N::select(zero < positive, one, positive)};
    } else if constexpr (A == activation::relu_squared) {
        const V positive = N::greater(zero, x);
        return {mul(positive, positive), positive + positive};
    } else {
        static_assert(A == activation::identity || A == activation::bilinear);
        return {x, one};
    }
}

/// g s(alpha g) h(u) with g at most the limit and u within it: h(u) = u + 1 and alpha 1.702, or h(u) = u and alpha 1.
template <activation A, class V>
struct limited_gate {
    static constexpr bool shifted = A == activation::clamped_swiglu;
    V gate, scaled, factor;

    GATEFOLD_HD GATEFOLD_INLINE limited_gate(V g, V u, V limit) {
        using N = number<V>;
        gate = N::lesser(limit, g);
        factor = N::greater(N::negate(limit), N::lesser(limit, u));
        scaled = gate;
        if constexpr (shifted) {
            scaled = N::mul(gate, constant<V>(lane_of<V>(1.702)));
            factor = factor + constant<V>(1);
        }
    }
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// The value of a gated activation; `limit` is the clamp of the limited ones, and read by them alone.
template <activation A, real V>
    requires(detail::gated_activation<A>)
GATEFOLD_HD GATEFOLD_INLINE V activate(V gate, std::type_identity_t<V> up, std::type_identity_t<V> limit) {
    if constexpr (detail::limited_activation<A>) {
        const detail::limited_gate<A, V> clamped(gate, up, limit);
        return mul(detail::times_sigmoid(clamped.gate, clamped.scaled), clamped.factor);
    } else if constexpr (A == activation::situ) {
        using lane = detail::lane_of<V>;
        const V bent = mul(detail::constant<V>(4), tanh(mul(gate, detail::constant<V>(lane(0.25)))));
        const V bounded = mul(detail::constant<V>(25), tanh(mul(up, detail::constant<V>(lane(0.04)))));
        return mul(mul(bent, sigmoid(gate)), bounded);
    } else
        return mul(detail::activation_value<A>(gate), up);
}

/// The value of a plain activation; `limit` is not read.
template <activation A, real V>
    requires(!detail::gated_activation<A>)
GATEFOLD_HD GATEFOLD_INLINE V activate(V x, std::type_identity_t<V>) { return detail::activation_value<A>(x); }

/// The gradients of both pre-activations for `d_out`, the gradient of the value.
///
/// A clamp passes its gradient where the argument equals the limit, and blocks it beyond. relu has slope 0 at 0.
template <activation A, real V>
    requires(detail::gated_activation<A>)
GATEFOLD_HD GATEFOLD_INLINE gated_gradient<V> activate_backward(V gate, std::type_identity_t<V> up,
                                                                std::type_identity_t<V> d_out,
                                                                std::type_identity_t<V> limit) {
    using N = number<V>;
    const V one = detail::constant<V>(1);
    if constexpr (detail::limited_activation<A>) {
        const detail::limited_gate<A, V> clamped(gate, up, limit);
        const V s = sigmoid(clamped.scaled), zero = detail::constant<V>(0);
        const V d_gate = mul(mul(d_out, clamped.factor), detail::slope_of_times_sigmoid(s, clamped.scaled));
        const V d_up = mul(d_out, mul(clamped.gate, s));
        return {N::select(limit < gate, zero, d_gate), N::select(limit < detail::magnitude(up), zero, d_up)};
    } else if constexpr (A == activation::situ) {
        using lane = detail::lane_of<V>;
        const V gate_tanh = tanh(mul(gate, detail::constant<V>(lane(0.25)))), s = sigmoid(gate);
        const V up_tanh = tanh(mul(up, detail::constant<V>(lane(0.04))));
        const V bent = mul(detail::constant<V>(4), gate_tanh), bounded = mul(detail::constant<V>(25), up_tanh);
        const V gate_slope = N::fma(mul(bent, s), one - s, mul(N::fma(N::negate(gate_tanh), gate_tanh, one), s));
        const V up_slope = N::fma(N::negate(up_tanh), up_tanh, one);
        return {mul(mul(d_out, bounded), gate_slope), mul(mul(d_out, mul(bent, s)), up_slope)};
    } else {
        const auto [value, slope] = detail::activation_slope<A>(gate);
        return {mul(mul(d_out, up), slope), mul(d_out, value)};
    }
}

/// The gradient of the pre-activation for `d_out`, the gradient of the value; relu has slope 0 at 0.
template <activation A, real V>
    requires(!detail::gated_activation<A>)
GATEFOLD_HD GATEFOLD_INLINE V activate_backward(V x, std::type_identity_t<V> d_out, std::type_identity_t<V>) {
    return mul(d_out, detail::activation_slope<A>(x).slope);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
