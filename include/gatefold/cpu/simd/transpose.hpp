// Square transposes in registers: how rows of weights become panels whose vectors hold one k of neighbouring outputs.
#pragma once

#include <cstddef>

#include <gatefold/cpu/simd/vec.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Lanes of 32 bits of a register.
inline constexpr int words = lanes<float>;

#if GATEFOLD_AVX512
/// The 4 × 4 squares of each 128-bit quarter, turned, four rows at a time: blocks of 2 × 2, then of 4 × 4. Compiler
/// shuffles here and below: the intrinsics of g++ 12 warn of an uninitialised operand.
template <std::size_t Rows>
GATEFOLD_INLINE void transpose_quarters(const vec<float> (&rows)[Rows], typename vec<float>::raw_type (&to)[Rows]) {
    typename vec<float>::raw_type a[Rows];
    GATEFOLD_UNROLL
    for (std::size_t i = 0; i < Rows; i += 2) {
        a[i] = __builtin_shufflevector(rows[i].raw, rows[i + 1].raw, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28,
                                       13, 29);
        a[i + 1] = __builtin_shufflevector(rows[i].raw, rows[i + 1].raw, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14,
                                           30, 15, 31);
    }
    GATEFOLD_UNROLL
    for (std::size_t i = 0; i < Rows; i += 4) {
        GATEFOLD_UNROLL
        for (std::size_t j = 0; j < 2; ++j) {
            to[i + 2 * j] = __builtin_shufflevector(a[i + j], a[i + 2 + j], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25,
                                                    12, 13, 28, 29);
            to[i + 2 * j + 1] = __builtin_shufflevector(a[i + j], a[i + 2 + j], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26,
                                                        27, 14, 15, 30, 31);
        }
    }
}
#endif

/// Transposes words × words elements of 32 bits: rows[i][j] becomes rows[j][i].
GATEFOLD_INLINE void transpose(vec<float> (&rows)[words]) {
#if GATEFOLD_AVX512
    typename vec<float>::raw_type b[16];
    transpose_quarters(rows, b);
    const auto even = [](auto x, auto y) {
        return __builtin_shufflevector(x, y, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
    };
    const auto odd = [](auto x, auto y) {
        return __builtin_shufflevector(x, y, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    };
    GATEFOLD_UNROLL
    for (int j = 0; j < 4; ++j) {
        const auto low0 = even(b[j], b[4 + j]), low1 = odd(b[j], b[4 + j]);
        const auto high0 = even(b[8 + j], b[12 + j]), high1 = odd(b[8 + j], b[12 + j]);
        rows[j].raw = even(low0, high0);
        rows[8 + j].raw = odd(low0, high0);
        rows[4 + j].raw = even(low1, high1);
        rows[12 + j].raw = odd(low1, high1);
    }
#elif GATEFOLD_AVX2
    typename vec<float>::raw_type a[8], b[8];
    GATEFOLD_UNROLL
    for (int i = 0; i < 8; i += 2) {
        a[i] = __builtin_shufflevector(rows[i].raw, rows[i + 1].raw, 0, 8, 1, 9, 4, 12, 5, 13);
        a[i + 1] = __builtin_shufflevector(rows[i].raw, rows[i + 1].raw, 2, 10, 3, 11, 6, 14, 7, 15);
    }
    GATEFOLD_UNROLL
    for (int i = 0; i < 8; i += 4) {
        GATEFOLD_UNROLL
        for (int j = 0; j < 2; ++j) {
            b[i + 2 * j] = __builtin_shufflevector(a[i + j], a[i + 2 + j], 0, 1, 8, 9, 4, 5, 12, 13);
            b[i + 2 * j + 1] = __builtin_shufflevector(a[i + j], a[i + 2 + j], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    }
    GATEFOLD_UNROLL
    for (int j = 0; j < 4; ++j) {
        rows[j].raw = __builtin_shufflevector(b[j], b[4 + j], 0, 1, 2, 3, 8, 9, 10, 11);
        rows[4 + j].raw = __builtin_shufflevector(b[j], b[4 + j], 4, 5, 6, 7, 12, 13, 14, 15);
    }
#else
    for (int i = 0; i < words; ++i)
        for (int j = i + 1; j < words; ++j) {
            const float above = rows[i].raw[j];
            rows[i].raw[j] = rows[j].raw[i];
            rows[j].raw[i] = above;
        }
#endif
}

#if GATEFOLD_AVX512
/// Transposes sixteen rows of eight elements, of which halves[i] holds row i and row 8 + i: halves[j] becomes element j
/// of all rows.
GATEFOLD_INLINE void transpose_halves(vec<float> (&halves)[8]) {
    typename vec<float>::raw_type b[8];
    transpose_quarters(halves, b);
    GATEFOLD_UNROLL
    for (int j = 0; j < 4; ++j) {
        halves[j].raw =
            __builtin_shufflevector(b[j], b[4 + j], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
        halves[4 + j].raw =
            __builtin_shufflevector(b[j], b[4 + j], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    }
}
#endif

/// The same for doubles; the compiler finds the shuffles.
GATEFOLD_INLINE void transpose(vec<double> (&rows)[lanes<double>]) {
    GATEFOLD_UNROLL
    for (int i = 0; i < lanes<double>; ++i) {
        GATEFOLD_UNROLL
        for (int j = i + 1; j < lanes<double>; ++j) {
            const double above = rows[i].raw[j];
            rows[i].raw[j] = rows[j].raw[i];
            rows[j].raw[i] = above;
        }
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
