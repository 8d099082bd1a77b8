// The 4-, 6- and 8-bit floating-point formats of checkpoints (OCP 8-bit and microscaling formats), decoded to float.
//
//     code ── exact ──> float          codes of a block and their scale ── one product ──> float
//
// Decoding is arithmetic on the bits; every value of these formats is a float, so nothing is rounded.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include <gatefold/core/error.hpp>
#include <gatefold/core/index.hpp>
#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0 {
namespace detail {
inline namespace GATEFOLD_TIER {

/// 2^exponent for the exponents of normal floats.
constexpr float small_float_power(int exponent) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23);
}

/// The number with the given exponent and mantissa fields, no specials: IEEE below the topmost exponent, and above.
template <int Exponent, int Mantissa, int Bias>
constexpr float small_float(unsigned code) {
    const unsigned mantissa = code & ((1u << Mantissa) - 1), exponent = code >> Mantissa & ((1u << Exponent) - 1);
    const float sign = (code >> (Exponent + Mantissa) & 1u) != 0 ? -1.0f : 1.0f;
    if (exponent == 0) return sign * static_cast<float>(mantissa) * small_float_power(1 - Bias - Mantissa);
    return sign * static_cast<float>(mantissa + (1u << Mantissa)) *
           small_float_power(static_cast<int>(exponent) - Bias - Mantissa);
}

inline constexpr float small_float_nan = std::bit_cast<float>(0x7fc00000u);
inline constexpr float small_float_infinity = std::bit_cast<float>(0x7f800000u);

}  // namespace GATEFOLD_TIER
}  // namespace detail

inline namespace GATEFOLD_TIER {

/// OCP E4M3: bias 7, no infinity, NaN = S.1111.111, largest 448.
constexpr float decode_e4m3(std::uint8_t code) {
    return (code & 0x7fu) == 0x7fu ? detail::small_float_nan : detail::small_float<4, 3, 7>(code);
}

/// OCP E5M2: the upper half of an IEEE half, largest 57344.
constexpr float decode_e5m2(std::uint8_t code) {
    if ((code & 0x7cu) != 0x7cu) return detail::small_float<5, 2, 15>(code);
    if ((code & 3u) != 0) return detail::small_float_nan;
    return code < 0x80u ? detail::small_float_infinity : -detail::small_float_infinity;
}

/// E4M3 without negative zero and infinity, bias 8; its code is the one NaN.
constexpr float decode_e4m3fnuz(std::uint8_t code) {
    return code == 0x80u ? detail::small_float_nan : detail::small_float<4, 3, 8>(code);
}

/// E5M2 without negative zero and infinity, bias 16; its code is the one NaN.
constexpr float decode_e5m2fnuz(std::uint8_t code) {
    return code == 0x80u ? detail::small_float_nan : detail::small_float<5, 2, 16>(code);
}

/// E8M0, a scale: 2^(code-127), 255 is NaN.
constexpr float decode_e8m0(std::uint8_t code) {
    if (code == 255) return detail::small_float_nan;
    return code == 0 ? std::bit_cast<float>(0x00400000u) : detail::small_float_power(code - 127);
}

/// E2M1, four bits: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives.
constexpr float decode_e2m1(unsigned code) { return detail::small_float<2, 1, 1>(code & 15u); }

/// E2M3 and E3M2, six bits.
constexpr float decode_e2m3(unsigned code) { return detail::small_float<2, 3, 1>(code & 63u); }
constexpr float decode_e3m2(unsigned code) { return detail::small_float<3, 2, 3>(code & 63u); }

static_assert(decode_e4m3(0x7e) == 448.0f && decode_e4m3(0x01) == 0x1p-9f && decode_e4m3(0xb8) == -1.0f);
static_assert(decode_e5m2(0x7b) == 57344.0f && decode_e5m2(0x01) == 0x1p-16f &&
              decode_e5m2(0xfc) == -detail::small_float_infinity);
static_assert(decode_e8m0(0) == 0x1p-127f && decode_e8m0(127) == 1.0f && decode_e8m0(254) == 0x1p127f);
static_assert(decode_e2m1(7) == 6.0f && decode_e2m1(9) == -0.5f && decode_e3m2(31) == 28.0f && decode_e2m3(31) == 7.5f);

}  // namespace GATEFOLD_TIER

namespace detail {
inline namespace GATEFOLD_TIER {

template <float (*Decode)(std::uint8_t)>
constexpr std::array<float, 256> decode_table() {
    std::array<float, 256> table{};
    for (unsigned code = 0; code < 256; ++code) table[code] = Decode(static_cast<std::uint8_t>(code));
    return table;
}

/// All values of an 8-bit format by code.
template <float (*Decode)(std::uint8_t)>
inline constexpr std::array<float, 256> small_float_table = decode_table<Decode>();

}  // namespace GATEFOLD_TIER
}  // namespace detail

inline namespace GATEFOLD_TIER {

/// Decodes hub MXFP4: blocks of 32 values that lie next to each other, two in a byte (the even one low), with one
/// scale.
///
/// Shapes: blocks [n, 16], scales [n] (E8M0), values [n, 32].
/// Throws: argument_error unless the sizes fit.
inline void decode_mxfp4(std::span<const std::byte> blocks, std::span<const std::byte> scales,
                         std::span<float> values) {
    require(blocks.size() == scales.size() * 16, "decode_mxfp4", "blocks", scales.size() * 16, blocks.size());
    require(values.size() == scales.size() * 32, "decode_mxfp4", "values", scales.size() * 32, values.size());
    for (std::size_t block = 0; block < scales.size(); ++block) {
        const float scale = decode_e8m0(std::to_integer<std::uint8_t>(scales[block]));
        for (std::size_t i = 0; i < 16; ++i) {
            const auto pair = std::to_integer<unsigned>(blocks[block * 16 + i]);
            values[block * 32 + 2 * i] = decode_e2m1(pair) * scale;
            values[block * 32 + 2 * i + 1] = decode_e2m1(pair >> 4) * scale;
        }
    }
}

/// Multiplies a matrix by scales of `block` × `block` values each, in place: the second half of decoding an FP8 weight.
///
/// Shapes: values [rows, columns], scales [ceil(rows / block), ceil(columns / block)].
/// Throws: argument_error unless the sizes fit.
inline void apply_block_scales(std::span<float> values, std::span<const float> scales, index_t rows, index_t columns,
                               index_t block = 128) {
    require(block > 0 && rows >= 0 && columns >= 0, "apply_block_scales", "extents", "no negative ones", "others");
    const index_t across = ceil_div(columns, block), down = ceil_div(rows, block);
    require(static_cast<index_t>(values.size()) == rows * columns, "apply_block_scales", "values", rows * columns,
            values.size());
    require(static_cast<index_t>(scales.size()) == down * across, "apply_block_scales", "scales", down * across,
            scales.size());
    for (index_t row = 0; row < rows; ++row)
        for (index_t column = 0; column < columns; ++column)
            values[static_cast<std::size_t>(row * columns + column)] *=
                scales[static_cast<std::size_t>(row / block * across + column / block)];
}

}  // namespace GATEFOLD_TIER
}  // namespace gatefold::inline v0
