// The micro-kernels of the CPU wing: a tile of a few rows times a few vectors of outputs, sums in registers.
//
//     rows, packed    [step][R] ──┐
//     streams, packed [step][W] ──┴──> c[R][NV · W]      NV streams side by side, W = lanes of a register
//
// A form says what a step is: one k (float, double; f16 and bf16 storage widened), or a pair of k (bf16). Every sum is
// one chain in ascending steps, so that cutting k, rows or outputs into blocks never changes a bit.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include <gatefold/cpu/simd/vec.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Sums in A over weights stored as B: c = fma(a, b, c) for one k after the other.
template <class A, class B = A>
struct chain {
    using sum_type = A;
    using row_type = A;     ///< an element of a packed row
    using stream_type = B;  ///< an element of a packed stream
    static constexpr int step = 1, padding = 1;
    // Two registers of outputs and one of the rows stand beside the sums.
    static constexpr int max_rows = vector_registers == 32 ? 14 : GATEFOLD_HARDWARE_FMA ? 6 : 4;

    GATEFOLD_INLINE static vec<A> weights(const B* p) { return load<A>(p); }
    GATEFOLD_INLINE static vec<A> row(const A* p) { return broadcast(*p); }
    GATEFOLD_INLINE static vec<A> multiply_add(vec<A> a, vec<A> b, vec<A> c) { return fma(a, b, c); }
};

#if GATEFOLD_AVX512_BF16
/// order::dot: two k at a time by the dot-product instruction.
struct dot {
    using sum_type = float;
    using row_type = float;  // the bits of two bf16
    using stream_type = bf16;
    static constexpr int step = 2, padding = 32;
    static constexpr int max_rows = 14;

    GATEFOLD_INLINE static vec<float> weights(const bf16* p) {
        vec<float> pairs;
        std::memcpy(&pairs.raw, p, sizeof pairs.raw);
        return pairs;
    }
    GATEFOLD_INLINE static vec<float> row(const float* p) { return {_mm512_set1_ps(*p)}; }
    GATEFOLD_INLINE static vec<float> multiply_add(vec<float> a, vec<float> b, vec<float> c) {
        return {_mm512_dpbf16_ps(c.raw, reinterpret_cast<__m512bh>(b.raw), reinterpret_cast<__m512bh>(a.raw))};
    }
};
#endif

/// What a kernel fetches besides what it multiplies.
struct lookahead {
    index_t distance = 0;        ///< bytes ahead in the streams themselves, into the first-level cache
    const char* next = nullptr;  ///< what will be multiplied next, into the second-level cache
    index_t advance = 0;         ///< bytes of `next` per step
};

/// c[i, :] = (fresh ? 0 : c[i, :]) + Σ row i · streams. `stream` is the number of elements from one stream to the next,
/// `row` the number from one row of c to the next.
template <class Form, int R, int NV>
GATEFOLD_NOINLINE void multiply(index_t steps, const typename Form::row_type* a, const typename Form::stream_type* b,
                                index_t stream, typename Form::sum_type* c, index_t row, bool fresh, lookahead ahead) {
    using sum = typename Form::sum_type;
    constexpr int width = lanes<sum>;
    vec<sum> sums[std::size_t{R}][std::size_t{NV}];
    if (fresh) {
        GATEFOLD_UNROLL
        for (int i = 0; i < R; ++i) {
            GATEFOLD_UNROLL
            for (int j = 0; j < NV; ++j) sums[i][j] = zeros<sum>();
        }
    } else {
        GATEFOLD_UNROLL
        for (int i = 0; i < R; ++i) {
            GATEFOLD_UNROLL
            for (int j = 0; j < NV; ++j) sums[i][j] = load<sum>(c + i * row + j * width);
        }
    }
    for (index_t k = 0; k < steps; ++k) {
        vec<sum> w[std::size_t{NV}];
        GATEFOLD_UNROLL
        for (int j = 0; j < NV; ++j) {
            w[j] = Form::weights(b + j * stream);
            prefetch<true>(reinterpret_cast<const char*>(b + j * stream) + ahead.distance);
        }
        if constexpr (NV == 2) {
            prefetch<false>(ahead.next);
            ahead.next += ahead.advance;
        }
        GATEFOLD_UNROLL
        for (int i = 0; i < R; ++i) {
            vec<sum> x = Form::row(a + i);
            keep_apart(x.raw);  // one load for all streams, not one in each multiply-add
            GATEFOLD_UNROLL
            for (int j = 0; j < NV; ++j) sums[i][j] = Form::multiply_add(x, w[j], sums[i][j]);
        }
        a += R;
        b += width * Form::step;
    }
    GATEFOLD_UNROLL
    for (int i = 0; i < R; ++i) {
        GATEFOLD_UNROLL
        for (int j = 0; j < NV; ++j) store(c + i * row + j * width, sums[i][j]);
    }
}

template <class Form>
using kernel = void (*)(index_t, const typename Form::row_type*, const typename Form::stream_type*, index_t,
                        typename Form::sum_type*, index_t, bool, lookahead);

/// The kernel for `rows` rows (1 .. Form::max_rows) and NV streams.
template <class Form, int NV, int Max = Form::max_rows>
GATEFOLD_INLINE kernel<Form> kernel_for(int rows) {
    return [&]<int... I>(std::integer_sequence<int, I...>) {
        static constexpr kernel<Form> table[] = {&multiply<Form, I + 1, NV>...};
        return table[rows - 1];
    }
    (std::make_integer_sequence<int, Max>{});
}

/// Rows cut into tiles of nearly equal height: 16 rows are 8 + 8, because a tile of 2 waits for its own sums.
struct row_tiles {
    index_t rows, tiles;
    GATEFOLD_INLINE row_tiles(index_t n, int max_rows) : rows(n), tiles(ceil_div<index_t>(n, max_rows)) {}
    GATEFOLD_INLINE index_t begin(index_t t) const { return rows * t / tiles; }
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
