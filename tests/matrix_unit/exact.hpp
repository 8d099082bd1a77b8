// The product of two tiles as the manual writes it down, in integers: no floating-point unit rounds anything here.
#pragma once

#include <cstdint>
#include <cstring>

namespace matrix_unit {

__extension__ using wide_integer = unsigned __int128;

inline std::uint32_t bits_of(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float float_of(std::uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
inline bool is_nan(float x) { return (bits_of(x) & 0x7fffffffu) > 0x7f800000u; }

/// ± mantissa · 2^exponent; a subnormal number is zero.
struct exact_number {
    bool negative, infinite;
    std::uint64_t mantissa;
    int exponent;
};
inline exact_number exact(float x) {
    const std::uint32_t bits = bits_of(x), field = bits >> 23 & 0xff;
    const bool negative = bits >> 31;
    if (field == 0) return {negative, false, 0, 0};
    if (field == 255) return {negative, true, 0, 0};
    return {negative, false, (bits & 0x7fffffu) | 0x800000u, static_cast<int>(field) - 150};
}

/// mantissa · 2^exponent to the nearest float, ties to even; below the least normal number, zero.
inline float rounded(bool negative, wide_integer mantissa, int exponent) {
    const std::uint32_t sign = negative ? 0x80000000u : 0;
    if (mantissa == 0) return float_of(sign);
    while (mantissa < 1u << 23) mantissa <<= 1, --exponent;
    int dropped = 0;
    while (mantissa >> dropped >= 1u << 24) ++dropped;
    auto kept = static_cast<std::uint32_t>(mantissa >> dropped);
    if (dropped > 0) {
        const wide_integer rest = mantissa - (static_cast<wide_integer>(kept) << dropped);
        const wide_integer half = static_cast<wide_integer>(1) << (dropped - 1);
        if (rest > half || (rest == half && kept % 2 == 1)) ++kept;
    }
    exponent += dropped;
    if (kept == 1u << 24) kept >>= 1, ++exponent;
    const int field = exponent + 150;
    if (field >= 255) return float_of(sign | 0x7f800000u);
    if (field <= 0) return float_of(sign);
    return float_of(sign | static_cast<std::uint32_t>(field) << 23 | (kept & 0x7fffffu));
}

/// a · b + c, rounded once.
inline float fused(float a, float b, float c) {
    constexpr std::uint32_t not_a_number = 0x7fc00000u;
    if (is_nan(a) || is_nan(b) || is_nan(c)) return float_of(not_a_number);
    const exact_number x = exact(a), y = exact(b), z = exact(c);
    const bool negative = x.negative != y.negative;
    if (x.infinite || y.infinite) {
        const bool by_zero = (!x.infinite && x.mantissa == 0) || (!y.infinite && y.mantissa == 0);
        if (by_zero || (z.infinite && z.negative != negative)) return float_of(not_a_number);
        return float_of((negative ? 0x80000000u : 0) | 0x7f800000u);
    }
    if (z.infinite) return c;

    std::uint64_t product = x.mantissa * y.mantissa;
    if (product == 0 && z.mantissa == 0) return rounded(negative && z.negative, 0, 0);
    if (product == 0) return rounded(z.negative, z.mantissa, z.exponent);
    if (z.mantissa == 0) return rounded(negative, product, x.exponent + y.exponent);

    // The operand of the higher exponent moves up as far as 128 bits allow, the other one the rest of the way down,
    // where a bit that says "and something" takes the place of what falls off.
    struct {
        bool negative;
        std::uint64_t mantissa;
        int exponent;
    } high{negative, product, x.exponent + y.exponent}, low{z.negative, z.mantissa, z.exponent}, other = high;
    if (high.exponent < low.exponent) high = low, low = other;
    const int distance = high.exponent - low.exponent, up = distance < 72 ? distance : 72, down = distance - up;
    const auto above = static_cast<wide_integer>(high.mantissa) << up;
    wide_integer below = down < 64 ? low.mantissa >> down : 0;
    if (down >= 64 || below << down != low.mantissa) below |= 1;
    const int exponent = high.exponent - up;
    if (high.negative == low.negative) return rounded(high.negative, above + below, exponent);
    if (above == below) return 0;
    return above > below ? rounded(high.negative, above - below, exponent)
                         : rounded(low.negative, below - above, exponent);
}

/// c[16][16] += a[rows][pairs][2] · b[pairs][columns][2]: even and odd products in chains of their own.
inline void multiply_exactly(float (&c)[16][16], const std::uint16_t (&a)[16][32], const std::uint16_t (&b)[16][32],
                             int rows, int columns, int pairs) {
    const auto wide = [](std::uint16_t x) { return float_of(static_cast<std::uint32_t>(x) << 16); };
    for (int m = 0; m < rows; ++m)
        for (int n = 0; n < columns; ++n) {
            float chains[2] = {0, 0};
            for (int k = 0; k < pairs; ++k)
                for (int i = 0; i < 2; ++i) chains[i] = fused(wide(a[m][2 * k + i]), wide(b[k][2 * n + i]), chains[i]);
            c[m][n] = fused(1, c[m][n], fused(1, chains[0], chains[1]));
        }
}

}  // namespace matrix_unit
