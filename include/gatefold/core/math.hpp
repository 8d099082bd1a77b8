// Elementary functions with the same bits on every CPU tier, on CUDA, and in every lane of a vector.
//
// Each is one branch-free chain of IEEE additions, explicit fmas, divisions and selects, written over a value type V
// (float, double, or a vector with number<V>, core/math/number.hpp). They assume the default rounding mode and no
// fast-math flags.
//     fma mul  exp log log1p  sigmoid tanh softplus erf  sqrt rsqrt
// Error bounds are in units in the last place of the exact result, and hold for float and double. A NaN argument gives
// a NaN, of unspecified sign and payload. Under flush-to-zero modes only subnormal arguments and results become zero.
#pragma once

#include <cstdint>
#include <type_traits>

#include <gatefold/core/math/number.hpp>

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// a b + c, rounded once.
template <real V>
GATEFOLD_HD GATEFOLD_INLINE V fma(V a, std::type_identity_t<V> b, std::type_identity_t<V> c) {
    return number<V>::fma(a, b, c);
}

/// a b, rounded: no compiler fuses it into an addition that follows, whatever -ffp-contract says.
template <real V>
GATEFOLD_HD GATEFOLD_INLINE V mul(V a, std::type_identity_t<V> b) {
    return number<V>::mul(a, b);
}

/// The IEEE square root.
template <real V>
GATEFOLD_HD GATEFOLD_INLINE V sqrt(V x) {
    return number<V>::sqrt(x);
}

/// 1 / sqrt(x): an IEEE division by an IEEE square root, not an estimate. At most 1.5 ulp.
template <real V>
GATEFOLD_HD GATEFOLD_INLINE V rsqrt(V x) {
    return number<V>::divide(number<V>::broadcast(1), number<V>::sqrt(x));
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <class V>
using lane_of = typename number<V>::scalar_type;
template <class V>
using format_of = real_format<lane_of<V>>;
template <class V>
inline constexpr bool is_single = std::is_same_v<lane_of<V>, float>;

template <class V>
GATEFOLD_HD GATEFOLD_INLINE V constant(lane_of<V> value) {
    return number<V>::broadcast(value);
}
template <class V>
GATEFOLD_HD GATEFOLD_INLINE auto word_constant(typename format_of<V>::word value) {
    return number<V>::broadcast_bits(value);
}

/// c0 + x (c1 + x (c2 + …)), a chain of fma.
template <class V>
GATEFOLD_HD GATEFOLD_INLINE V horner(V, std::type_identity_t<lane_of<V>> c0) {
    return constant<V>(c0);
}
template <class V, class... C>
GATEFOLD_HD GATEFOLD_INLINE V horner(V x, std::type_identity_t<lane_of<V>> c0, C... rest) {
    return number<V>::fma(horner(x, rest...), x, constant<V>(c0));
}

template <class V>
GATEFOLD_HD GATEFOLD_INLINE V magnitude(V x) {
    using word = typename format_of<V>::word;
    return number<V>::from_bits(number<V>::bit_and(number<V>::to_bits(x), word_constant<V>(~word{0} >> 1)));
}
/// `size`, which must be zero or positive, with the sign of x.
template <class V>
GATEFOLD_HD GATEFOLD_INLINE V with_sign_of(V size, V x) {
    using N = number<V>;
    using word = typename format_of<V>::word;
    return N::from_bits(N::bit_or(N::to_bits(size), N::bit_and(N::to_bits(x), word_constant<V>(~(~word{0} >> 1)))));
}

/// The parts of a logarithm: x = 2^k (1 + f) with 1 + f between sqrt(1/2) and sqrt(2); inverse = 2^-k.
template <class V>
struct log_split {
    V k, f, inverse;
};
template <class V>
GATEFOLD_HD GATEFOLD_INLINE log_split<V> split_log(V x) {
    using N = number<V>;
    using format = format_of<V>;
    using word = typename format::word;
    constexpr int places = format::fraction_bits;
    constexpr word one = word{format::bias} << places;
    constexpr word half_root = is_single<V> ? word{0x3f3504f3u} : static_cast<word>(0x3fe6a09e667f3bcdu);
    constexpr word integer = word{format::bias + places} << places;  // as a number 2^places: its last bit counts ones

    const auto bits = N::to_bits(x);
    const auto biased = N::template shift_right<places>(N::add(bits, word_constant<V>(one - half_root)));
    const auto exponent = N::template shift_left<places>(biased);
    const V k = N::from_bits(N::bit_or(biased, word_constant<V>(integer))) -
                constant<V>(static_cast<lane_of<V>>((word{1} << places) + format::bias));
    const V m = N::from_bits(N::subtract(N::add(bits, word_constant<V>(one)), exponent));
    return {k, m - constant<V>(1), N::from_bits(N::subtract(word_constant<V>(2 * one), exponent))};
}

/// k ln 2 + log(1 + f), by s = f / (2 + f): log(1 + f) = 2 atanh(s).
template <class V>
GATEFOLD_HD GATEFOLD_INLINE V join_log(V k, V f) {
    using N = number<V>;
    using format = format_of<V>;
    const V s = N::divide(f, constant<V>(2) + f), z = N::mul(s, s);
    V tail;
    if constexpr (is_single<V>)
        tail = horner(z, 0x1.555554p-1f, 0x1.999a7ap-2f, 0x1.2438d4p-2f, 0x1.e2f712p-3f);
    else
        tail = horner(z, 0x1.5555555555592p-1, 0x1.999999997fd7cp-2, 0x1.24924941f4e28p-2, 0x1.c71c5206089a5p-3,
                      0x1.74663fa49dedap-3, 0x1.39a1a68823025p-3, 0x1.2f063a4d84b4cp-3);
    const V half_square = N::mul(N::mul(constant<V>(lane_of<V>(0.5)), f), f);
    const V inner = N::fma(s, N::fma(z, tail, half_square), N::mul(k, constant<V>(format::ln2_rest)));
    return N::fma(k, constant<V>(format::ln2), f - (half_square - inner));
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// e^x. At most 1 ulp.
///
/// Results that would lie below 2^-125.5 (float; 2^-1021.5 for double) are zero: no result is ever subnormal, so that
/// flush-to-zero modes change nothing and far-away logits cost no assist. Too large results are infinite.
template <real V>
GATEFOLD_HD GATEFOLD_INLINE V exp(V x) {
    using N = number<V>;
    using format = detail::format_of<V>;
    constexpr int places = format::fraction_bits;
    // Beyond these the result is zero by a zero scale, or infinite by overflow of the last product.
    constexpr detail::lane_of<V> low = detail::is_single<V> ? -87.5 : -708.5, high = detail::is_single<V> ? 89 : 710;
    const V bounded = N::greater(detail::constant<V>(low), N::lesser(detail::constant<V>(high), x));

    // x = n ln 2 + r. Adding 1.5 2^places rounds to the integer n and leaves it in the low bits, biased as the exponent
    // of scale = 2^(n - 1). The polynomial is twice e^r, so that one scale reaches both ends of the range.
    constexpr auto magic = static_cast<detail::lane_of<V>>((std::uint64_t{3} << (places - 1)) + format::bias - 1);
    const V shifted = N::fma(bounded, detail::constant<V>(format::log2e), detail::constant<V>(magic));
    const V n = shifted - detail::constant<V>(magic);
    V r = N::fma(n, detail::constant<V>(-format::ln2), bounded);
    r = N::fma(n, detail::constant<V>(-format::ln2_rest), r);
    const V scale = N::from_bits(N::template shift_left<places>(N::to_bits(shifted)));
    constexpr detail::lane_of<V> two = 2;
    V twice;
    if constexpr (detail::is_single<V>)
        twice =
            detail::horner(r, two, two, 0x1.fffffcp-1f, 0x1.555492p-2f, 0x1.5558fp-4f, 0x1.1239e4p-6f, 0x1.6a249ep-9f);
    else
        twice = detail::horner(r, two, two, 0x1.000000000000ap0, 0x1.55555555554fap-2, 0x1.555555555087ep-4,
                               0x1.1111111127bfap-6, 0x1.6c16c18429af1p-9, 0x1.a01a012a50c7p-12, 0x1.a0199a0d4f096p-15,
                               0x1.71df25601d1f9p-18, 0x1.28ad7212ce83ep-21, 0x1.ad7f5c5cbd678p-25);
    return N::mul(twice, scale);
}

/// 1 / (1 + e^-x). At most 2.5 ulp; zero below -88.73 (float) or -709.79 (double).
template <real V>
GATEFOLD_HD GATEFOLD_INLINE V sigmoid(V x) {
    const V one = detail::constant<V>(1);
    return number<V>::divide(one, one + exp(number<V>::negate(x)));
}

/// The hyperbolic tangent. At most 2 ulp; odd.
template <real V>
GATEFOLD_HD GATEFOLD_INLINE V tanh(V x) {
    using N = number<V>;
    const V t = detail::magnitude(x), square = N::mul(t, t), one = detail::constant<V>(1);
    V series;
    if constexpr (detail::is_single<V>)
        series =
            detail::horner(square, -0x1.555548p-2f, 0x1.110c72p-3f, -0x1.b9093p-5f, 0x1.582ef6p-6f, -0x1.94fbf8p-8f);
    else
        series = detail::horner(square, -0x1.555555555554bp-2, 0x1.11111111102b2p-3, -0x1.ba1ba1b935b25p-5,
                                0x1.664f48494bacdp-6, -0x1.226e2d01083dap-7, 0x1.d6d2475e9eb2cp-9,
                                -0x1.7d8b933c20149p-10, 0x1.3460973323784p-11, -0x1.e809bf18095f4p-13,
                                0x1.5970105a5a4a3p-14, -0x1.3d22504bf24b6p-16);
    const V near = N::fma(N::mul(square, series), t, t);
    const V far = one - N::divide(detail::constant<V>(2), exp(t + t) + one);
    return detail::with_sign_of(N::select(t < detail::constant<V>(detail::lane_of<V>(0.5625)), near, far), x);
}

/// The natural logarithm. At most 1 ulp; log(0) = -inf, log of a negative number is a NaN, subnormals are honoured.
template <real V>
GATEFOLD_HD GATEFOLD_INLINE V log(V x) {
    using N = number<V>;
    using format = detail::format_of<V>;
    constexpr detail::lane_of<V> up = detail::is_single<V> ? 0x1p24 : 0x1p54, places = detail::is_single<V> ? 24 : 54;
    const auto tiny = x < detail::constant<V>(format::least_normal);
    const auto [k, f, inverse] = detail::split_log(N::select(tiny, N::mul(x, detail::constant<V>(up)), x));
    const V zero = detail::constant<V>(0), infinity = detail::constant<V>(format::infinity);
    V y = detail::join_log(k - N::select(tiny, detail::constant<V>(places), zero), f);
    y = N::select(x < infinity, y, x);
    y = N::select(x < zero, detail::constant<V>(format::not_a_number), y);
    return N::select(x == zero, N::negate(infinity), y);
}

/// log(1 + x) without the cancellation for small x. At most 2 ulp; log1p(-1) = -inf, a NaN below.
template <real V>
GATEFOLD_HD GATEFOLD_INLINE V log1p(V x) {
    using N = number<V>;
    const V zero = detail::constant<V>(0), one = detail::constant<V>(1);
    const V infinity = detail::constant<V>(detail::format_of<V>::infinity);
    // What 1 + x lost in rounding goes back into the argument of the series, scaled alike; where 2^-k may leave the
    // exponent range it no longer matters.
    const V sum = one + x, taken = sum - one;
    const V lost = (one - (sum - taken)) + (x - taken);
    const auto [k, f, inverse] = detail::split_log(sum);
    const V far = detail::constant<V>(detail::is_single<V> ? 0x1p25 : 0x1p54);
    V y = detail::join_log(k, N::fma(lost, N::select(x < far, inverse, zero), f));
    y = N::select(x < infinity, y, x);
    y = N::select(x < N::negate(one), detail::constant<V>(detail::format_of<V>::not_a_number), y);
    y = N::select(x == N::negate(one), N::negate(infinity), y);
    return detail::with_sign_of(detail::magnitude(y), x);
}

/// log(1 + e^x). At most 3 ulp; zero where e^x is.
template <real V>
GATEFOLD_HD GATEFOLD_INLINE V softplus(V x) {
    using N = number<V>;
    return N::greater(detail::constant<V>(0), x) + log1p(exp(N::negate(detail::magnitude(x))));
}

/// The error function. At most 2 ulp; odd.
template <real V>
GATEFOLD_HD GATEFOLD_INLINE V erf(V x) {
    using N = number<V>;
    const V t = detail::magnitude(x), one = detail::constant<V>(1);
    const V square = N::mul(t, t);
    // From its saturation on, the result is 1; erfc below is e^-g with g(t) = t + t h(t).
    const V bounded = N::lesser(detail::constant<V>(detail::is_single<V> ? 4 : 6), t);
    V series, h;
    if constexpr (detail::is_single<V>) {
        series = detail::horner(square, 0x1.06eba8p-3f, -0x1.81273ep-2f, 0x1.ce2cf8p-4f, -0x1.b7f90ep-6f,
                                0x1.5405b2p-8f, -0x1.a3f704p-11f, 0x1.496a3ap-14f);
        h = detail::horner(bounded, 0x1.0790e6p-3f, 0x1.451abap-1f, 0x1.b459bp-4f, -0x1.896178p-6f, 0x1.ec7fd2p-9f,
                           -0x1.6f9f0ep-12f, 0x1.d47fdep-17f);
    } else {
        series = detail::horner(square, 0x1.06eba8214db68p-3, -0x1.812746b0379bdp-2, 0x1.ce2f21a040d16p-4,
                                -0x1.b82ce311fa958p-6, 0x1.565bccf92b624p-8, -0x1.c02db03dde46cp-11,
                                0x1.f9a2baa9a1b2fp-14, -0x1.f4ca4d789092cp-17, 0x1.b97fd43180828p-20,
                                -0x1.5c0728f3f6dcfp-23, 0x1.d71b1c7837766p-27, -0x1.abae6f6d5a6e3p-31);
        h = detail::horner(bounded, 0x1.06ebacbcc09d4p-3, 0x1.45f2f9113fef3p-1, 0x1.a4f74f624f1d7p-4,
                           -0x1.39889beca4ec9p-6, -0x1.8cba4336aeb6cp-13, 0x1.b3042cce049bfp-10, -0x1.1a0e0e764b472p-11,
                           -0x1.11c2ca407bf74p-15, 0x1.eb1f4594c2f54p-14, -0x1.1c4d86cddc202p-14, 0x1.aaf27d9583517p-16,
                           -0x1.df9b6006765a6p-18, 0x1.a2955aa9b9838p-20, -0x1.1d1cd275911acp-22, 0x1.2ac82b36db623p-25,
                           -0x1.d2540f39ff027p-29, 0x1.feed1a8645595p-33, -0x1.5ea9c28b4f4eep-37,
                           0x1.c59c690bf9ce3p-43);
    }
    const V near = N::fma(t, series, t);
    const V far = one - exp(N::negate(N::fma(bounded, h, bounded)));
    return detail::with_sign_of(N::select(t < one, near, far), x);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
