// Storage types: what tensors hold, what sums are kept in, and the one rounding between the two.
//
//     bf16 f16 (2 bytes) ── exact ──> float ── arithmetic ──> float ── round to nearest even, once ──> bf16 f16
//
// The conversions are integer arithmetic on the bits: they depend neither on the instruction set nor on the rounding or
// flush-to-zero mode of the thread, so host and device agree to the bit.
#pragma once

#include <cstdint>
#include <type_traits>

#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0 {
namespace detail {

/// The bits of `value` in another type of the same size; usable in constant expressions and on the device.
template <class To, class From>
    requires(sizeof(To) == sizeof(From))
GATEFOLD_HD GATEFOLD_INLINE constexpr To bits_as(From value) { return __builtin_bit_cast(To, value); }

/// Rounds an IEEE number of `SourceMantissa` fraction bits to a 16-bit one of `Mantissa` fraction bits, once.
///
/// Subnormal sources lie below half of the least positive result in every use, and become zero.
template <int SourceMantissa, int SourceBias, int Mantissa, int Bias>
GATEFOLD_HD GATEFOLD_INLINE constexpr std::uint16_t narrow(std::uint64_t source, bool negative) {
    constexpr std::uint64_t source_infinity = (2 * std::uint64_t{SourceBias} + 1) << SourceMantissa;
    constexpr std::uint32_t infinity = (2u * Bias + 1u) << Mantissa, quiet = 1u << (Mantissa - 1);
    constexpr int drop = SourceMantissa - Mantissa;

    std::uint32_t result = 0;
    if (source > source_infinity) {
        const std::uint64_t payload = (source & (source_infinity ^ (source_infinity - 1) >> 1)) >> drop;
        result = infinity | quiet | (static_cast<std::uint32_t>(payload) & (quiet - 1));
    } else {
        const int exponent = static_cast<int>(source >> SourceMantissa) - SourceBias + Bias;
        const int shift = exponent >= 1 ? drop : drop + 1 - exponent;
        if (shift <= SourceMantissa + 1) {
            const std::uint64_t one = std::uint64_t{1} << SourceMantissa;
            const std::uint64_t significand = (source & (one - 1)) | one;
            const std::uint64_t half = std::uint64_t{1} << (shift - 1), tail = significand & (2 * half - 1);
            std::uint64_t kept = significand >> shift;
            kept += (tail > half || (tail == half && (kept & 1) != 0)) ? 1u : 0u;
            // The hidden bit adds one to the exponent field; a carry out of the fraction is one more binade.
            if (exponent >= 1) kept += static_cast<std::uint64_t>(exponent - 1) << Mantissa;
            result = kept < infinity ? static_cast<std::uint32_t>(kept) : infinity;
        }
    }
    return static_cast<std::uint16_t>(result | (negative ? 0x8000u : 0u));
}

template <int Mantissa, int Bias>
GATEFOLD_HD GATEFOLD_INLINE constexpr std::uint16_t narrow(float value) {
    const auto bits = bits_as<std::uint32_t>(value);
    return narrow<23, 127, Mantissa, Bias>(bits & 0x7fffffffu, bits >> 31 != 0);
}

template <int Mantissa, int Bias>
GATEFOLD_HD GATEFOLD_INLINE constexpr std::uint16_t narrow(double value) {
    const auto bits = bits_as<std::uint64_t>(value);
    return narrow<52, 1023, Mantissa, Bias>(bits & 0x7fffffffffffffffu, bits >> 63 != 0);
}

}  // namespace detail

/// bfloat16: the upper half of a float. Compares and computes as the float it stands for.
///
/// Numbers round to nearest even, once, also from double; subnormals, infinities and signed zeros are kept, a NaN stays
/// a (quiet) NaN.
struct bf16 {
    std::uint16_t bits;

    bf16() = default;
    GATEFOLD_HD GATEFOLD_INLINE explicit constexpr bf16(float value) : bits(round(value)) {}
    GATEFOLD_HD GATEFOLD_INLINE explicit constexpr bf16(double value) : bits(detail::narrow<7, 127>(value)) {}
    GATEFOLD_HD GATEFOLD_INLINE explicit constexpr bf16(int value) : bf16(static_cast<double>(value)) {}
    GATEFOLD_HD GATEFOLD_INLINE static constexpr bf16 from_bits(std::uint16_t bits) {
        bf16 result{};
        result.bits = bits;
        return result;
    }
    GATEFOLD_HD GATEFOLD_INLINE constexpr operator float() const {
        return detail::bits_as<float>(static_cast<std::uint32_t>(bits) << 16);
    }

private:
    GATEFOLD_HD GATEFOLD_INLINE static constexpr std::uint16_t round(float value) {
        const auto source = detail::bits_as<std::uint32_t>(value);
        const std::uint32_t rounded = (source + 0x7fffu + (source >> 16 & 1u)) >> 16, quiet = source >> 16 | 0x40u;
        return static_cast<std::uint16_t>((source & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
    }
};

/// IEEE binary16. Compares and computes as the float it stands for; rounds as bf16 does, beyond 65504 to infinity.
struct f16 {
    std::uint16_t bits;

    f16() = default;
    GATEFOLD_HD GATEFOLD_INLINE explicit constexpr f16(float value) : bits(detail::narrow<10, 15>(value)) {}
    GATEFOLD_HD GATEFOLD_INLINE explicit constexpr f16(double value) : bits(detail::narrow<10, 15>(value)) {}
    GATEFOLD_HD GATEFOLD_INLINE explicit constexpr f16(int value) : f16(static_cast<double>(value)) {}
    GATEFOLD_HD GATEFOLD_INLINE static constexpr f16 from_bits(std::uint16_t bits) {
        f16 result{};
        result.bits = bits;
        return result;
    }
    GATEFOLD_HD GATEFOLD_INLINE constexpr operator float() const {
        const std::uint32_t sign = (bits & 0x8000u) << 16, rest = bits & 0x7fffu;
        if (rest >= 0x7c00u) return detail::bits_as<float>(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
        if (rest >= 0x0400u) return detail::bits_as<float>(sign | ((rest << 13) + ((127u - 15u) << 23)));
        // Subnormal: a small integer times 2^-24, exact and normal as a float.
        const float magnitude = static_cast<float>(static_cast<int>(rest)) * 0x1p-24f;
        return detail::bits_as<float>(sign | detail::bits_as<std::uint32_t>(magnitude));
    }
};

static_assert(sizeof(bf16) == 2 && alignof(bf16) == 2 && std::is_trivially_copyable_v<bf16>);
static_assert(sizeof(f16) == 2 && alignof(f16) == 2 && std::is_trivially_copyable_v<f16>);

/// A type tensors may hold and kernels may compute with.
template <class T>
concept scalar =
    std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, bf16> || std::is_same_v<T, f16>;

/// The type sums over T are kept in: double for double, float for everything else.
template <scalar T>
using accumulate_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// The name of a storage type in files, reports and benches.
template <scalar T>
inline constexpr const char* dtype_name = std::is_same_v<T, float>    ? "f32"
                                          : std::is_same_v<T, double> ? "f64"
                                          : std::is_same_v<T, bf16>   ? "bf16"
                                                                      : "f16";

inline namespace GATEFOLD_TIER {

/// The stored value as the type its sums are kept in (exact).
template <scalar T>
GATEFOLD_HD GATEFOLD_INLINE constexpr accumulate_t<T> to_accumulate(T value) {
    return static_cast<accumulate_t<T>>(value);
}

/// The sum as it is stored: rounded to nearest even, once.
template <scalar T>
GATEFOLD_HD GATEFOLD_INLINE constexpr T from_accumulate(std::type_identity_t<accumulate_t<T>> value) {
    return static_cast<T>(value);
}

}  // namespace GATEFOLD_TIER
}  // namespace gatefold::inline v0
