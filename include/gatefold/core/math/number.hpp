// number<V>: what core/math.hpp asks of a type it computes with. float and double here, simd vectors in cpu/simd/.
//
// clang-format off
// To plug in a vector type V of lanes S (float or double), write in namespace gatefold::inline v0:
//
//     template <> struct number<V> {
//         using scalar_type = S;                  // the type of one lane
//         using bits_type = ...;                  // unsigned lanes as wide as S, any representation
//         static V broadcast(S);                  static bits_type broadcast_bits(word of S);
//         static V fma(V a, V b, V c);            // a b + c, rounded once
//         static V mul(V a, V b);                 // a b, rounded; no compiler may fuse it into an addition that follows
//         static V divide(V, V);                  static V sqrt(V);                static V negate(V);      // IEEE
//         static V lesser(V a, V b);              // a < b ? a : b, so b where one is a NaN (x86 minps)
//         static V greater(V a, V b);             // a > b ? a : b, so b where one is a NaN (x86 maxps)
//         static V select(mask, V a, V b);        // a where the mask holds; masks come from < and == on V
//         static bits_type to_bits(V);            static V from_bits(bits_type);
//         static bits_type add(...), subtract(...), bit_and(...), bit_or(...);      // on bits_type, wrapping
//         static bits_type shift_left<int>(bits_type), shift_right<int>(bits_type); // right: zeros come in
//     };
//
// clang-format on
// and give V the operators + - < ==. Members must be always-inline. A function of core/math.hpp is the same chain of
// these steps for every V, and has the bits of the scalar in every lane.
#pragma once

#include <cstdint>

#include <gatefold/core/dtype.hpp>
#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0 {

/// The operations of a type that core/math.hpp can compute with; see the top of this file.
template <class V>
struct number;

/// float, double and the vectors number<V> is specialised for.
template <class V>
concept real = requires {
    typename number<V>::scalar_type;
};

namespace detail {

/// A value that the optimiser cannot look through; costs no instruction.
template <class S>
GATEFOLD_HD GATEFOLD_INLINE S opaque(S value) {
#if !GATEFOLD_ON_DEVICE
// On every target, since compilers fuse where no macro says so (g++ with AVX-512F under -mno-fma, RISC-V). And
// __builtin_assoc_barrier does not do: g++ drops it when it vectorises a loop, and fuses then.
#if defined(__x86_64__)
    asm("" : "+x"(value));
#elif defined(__aarch64__)
    asm("" : "+w"(value));
#else
    asm("" : "+m"(value));
#endif
#endif
    return value;
}

/// a b + c rounded once, where the target has no such instruction: exact product and sum in double, rounded to odd,
/// which leaves the second rounding right.
GATEFOLD_HD GATEFOLD_INLINE float fma_in_software(float a, float b, float c) {
    const double product = static_cast<double>(a) * static_cast<double>(b), addend = static_cast<double>(c);
    const double sum = product + addend;
    const double taken = sum - product, error = (product - (sum - taken)) + (addend - taken);
    auto bits = bits_as<std::uint64_t>(sum);
    if ((error < 0 || error > 0) && (bits & 1u) == 0) bits += (error > 0) == (sum > 0) ? 1u : ~std::uint64_t{0};
    return static_cast<float>(bits_as<double>(bits));
}

GATEFOLD_HD GATEFOLD_INLINE float fma_of(float a, float b, float c) {
#if GATEFOLD_ON_DEVICE
    return __fmaf_rn(a, b, c);
#elif GATEFOLD_HARDWARE_FMA
    return __builtin_fmaf(a, b, c);
#else
    return fma_in_software(a, b, c);
#endif
}
GATEFOLD_HD GATEFOLD_INLINE double fma_of(double a, double b, double c) {
#if GATEFOLD_ON_DEVICE
    return __fma_rn(a, b, c);
#else
    return __builtin_fma(a, b, c);  // correctly rounded by the C library where the target lacks the instruction
#endif
}

GATEFOLD_HD GATEFOLD_INLINE float product_of(float a, float b) {
#if GATEFOLD_ON_DEVICE
    return __fmul_rn(a, b);
#else
    return opaque(a * b);
#endif
}
GATEFOLD_HD GATEFOLD_INLINE double product_of(double a, double b) {
#if GATEFOLD_ON_DEVICE
    return __dmul_rn(a, b);
#else
    return opaque(a * b);
#endif
}

GATEFOLD_HD GATEFOLD_INLINE float quotient_of(float a, float b) {
#if GATEFOLD_ON_DEVICE
    return __fdiv_rn(a, b);
#else
    return a / b;
#endif
}
GATEFOLD_HD GATEFOLD_INLINE double quotient_of(double a, double b) {
#if GATEFOLD_ON_DEVICE
    return __ddiv_rn(a, b);
#else
    return a / b;
#endif
}

GATEFOLD_HD GATEFOLD_INLINE float root_of(float a) {
#if GATEFOLD_ON_DEVICE
    return __fsqrt_rn(a);
#else
    return __builtin_sqrtf(a);
#endif
}
GATEFOLD_HD GATEFOLD_INLINE double root_of(double a) {
#if GATEFOLD_ON_DEVICE
    return __dsqrt_rn(a);
#else
    return __builtin_sqrt(a);
#endif
}

/// number<V> of a scalar.
template <class S, class Word>
struct scalar_number {
    using scalar_type = S;
    using bits_type = Word;

    GATEFOLD_HD GATEFOLD_INLINE static S broadcast(S a) { return a; }
    GATEFOLD_HD GATEFOLD_INLINE static Word broadcast_bits(Word a) { return a; }
    GATEFOLD_HD GATEFOLD_INLINE static S fma(S a, S b, S c) { return fma_of(a, b, c); }
    GATEFOLD_HD GATEFOLD_INLINE static S mul(S a, S b) { return product_of(a, b); }
    GATEFOLD_HD GATEFOLD_INLINE static S divide(S a, S b) { return quotient_of(a, b); }
    GATEFOLD_HD GATEFOLD_INLINE static S sqrt(S a) { return root_of(a); }
    GATEFOLD_HD GATEFOLD_INLINE static S negate(S a) { return -a; }
    GATEFOLD_HD GATEFOLD_INLINE static S lesser(S a, S b) { return a < b ? a : b; }
    GATEFOLD_HD GATEFOLD_INLINE static S greater(S a, S b) { return a > b ? a : b; }
    GATEFOLD_HD GATEFOLD_INLINE static S select(bool mask, S a, S b) { return mask ? a : b; }
    GATEFOLD_HD GATEFOLD_INLINE static Word to_bits(S a) { return bits_as<Word>(a); }
    GATEFOLD_HD GATEFOLD_INLINE static S from_bits(Word a) { return bits_as<S>(a); }
    GATEFOLD_HD GATEFOLD_INLINE static Word add(Word a, Word b) { return a + b; }
    GATEFOLD_HD GATEFOLD_INLINE static Word subtract(Word a, Word b) { return a - b; }
    GATEFOLD_HD GATEFOLD_INLINE static Word bit_and(Word a, Word b) { return a & b; }
    GATEFOLD_HD GATEFOLD_INLINE static Word bit_or(Word a, Word b) { return a | b; }
    template <int Places>
    GATEFOLD_HD GATEFOLD_INLINE static Word shift_left(Word a) {
        return a << Places;
    }
    template <int Places>
    GATEFOLD_HD GATEFOLD_INLINE static Word shift_right(Word a) {
        return a >> Places;
    }
};

}  // namespace detail

template <>
struct number<float> : detail::scalar_number<float, std::uint32_t> {};
template <>
struct number<double> : detail::scalar_number<double, std::uint64_t> {};

namespace detail {

/// The IEEE format of S and the constants whose split depends on it.
template <class S>
struct real_format;
template <>
struct real_format<float> {
    using word = std::uint32_t;
    static constexpr int fraction_bits = 23, bias = 127;
    static constexpr float infinity = __builtin_huge_valf(), not_a_number = __builtin_nanf("");
    static constexpr float least_normal = 0x1p-126f;
    static constexpr float log2e = 0x1.715476p0f, ln2 = 0x1.62e43p-1f, ln2_rest = -0x1.05c61p-29f;
};
template <>
struct real_format<double> {
    using word = std::uint64_t;
    static constexpr int fraction_bits = 52, bias = 1023;
    static constexpr double infinity = __builtin_huge_val(), not_a_number = __builtin_nan("");
    static constexpr double least_normal = 0x1p-1022;
    static constexpr double log2e = 0x1.71547652b82fep0, ln2 = 0x1.62e42fefa39efp-1, ln2_rest = 0x1.abc9e3b39803fp-56;
};

}  // namespace detail
}  // namespace gatefold::inline v0
