// Rotary position embedding, halves rotated against each other: (x_i, x_{i+d/2}) turns by the angle position ·
// base^(-2i/d).
//
//     rope_table ── cos, sin of every position, made once ──> rotate(queries), rotate(keys), and back for gradients
#pragma once

#include <cmath>

#include <gatefold/core/math.hpp>
#include <gatefold/core/tensor.hpp>
#include <gatefold/cpu/simd/vec.hpp>
#include <gatefold/ops/rows.hpp>

namespace gatefold::inline v0 {

/// Cosines and sines of every angle that positions 0 … positions-1 of heads of HeadSize need, rounded once from double.
template <class T, int HeadSize>
class rope_table {
    static_assert(HeadSize >= 2 && HeadSize % 2 == 0, "gatefold::rope_table: head_size must be even");

public:
    using A = accumulate_t<T>;
    static constexpr int half = HeadSize / 2;

    rope_table() = default;
    /// Throws: argument_error for a negative number of positions or a base that is not above 1, std::bad_alloc.
    rope_table(context<cpu>& ctx, index_t positions, double base)
        : cosines_(make_tensor<A, dyn, half>(ctx, positions)), sines_(make_tensor<A, dyn, half>(ctx, positions)) {
        require(base > 1, "rope_table", "base", "a number above 1", base);
        for (int i = 0; i < half; ++i) {
            const double frequency = std::pow(base, -2.0 * i / HeadSize);
            for (index_t p = 0; p < positions; ++p) {
                cosines_(p, i) = static_cast<A>(std::cos(static_cast<double>(p) * frequency));
                sines_(p, i) = static_cast<A>(std::sin(static_cast<double>(p) * frequency));
            }
        }
    }

    index_t positions() const { return cosines_.extent(0); }
    const A* cosines(index_t position) const { return cosines_.data() + position * half; }
    const A* sines(index_t position) const { return sines_.data() + position * half; }

private:
    tensor<A, dyn, half> cosines_, sines_;
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

template <bool Back, class T, int HeadSize>
GATEFOLD_INLINE void rotate_head(T* x, const accumulate_t<T>* cosines, const accumulate_t<T>* sines) {
    using A = accumulate_t<T>;
    constexpr int half = HeadSize / 2, width = lanes<A>;
    for (int i = 0; i < half; i += width) {
        const vec<A> c = load_first<A>(cosines + i, half - i), s = load_first<A>(sines + i, half - i);
        const vec<A> low = load_first<A>(x + i, half - i), high = load_first<A>(x + half + i, half - i);
        const vec<A> minus{-s.raw}, up = Back ? minus : s, down = Back ? s : minus;
        store_first(x + i, fma(high, down, mul(low, c)), half - i);
        store_first(x + half + i, fma(low, up, mul(high, c)), half - i);
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <bool Back, class T, int HeadSize, int Columns>
void rotate_rows(context<cpu>& ctx, const char* function, const rope_table<T, HeadSize>& table, view<T, dyn, Columns> x,
                 index_t length, index_t first_position) {
    static_assert(Columns % HeadSize == 0, "gatefold::rotate: rows must be whole heads");
    const index_t rows = x.extent(0);
    require(length >= 1 && rows % length == 0, function, "length", "a divisor of the number of rows", length);
    require(first_position >= 0 && first_position + length <= table.positions(), function, "first_position",
            "positions inside the table", first_position);
    on_cpu::share_out(ctx, rows, 4 * Columns, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r)
            for (int h = 0; h < Columns; h += HeadSize)
                on_cpu::rotate_head<Back, T, HeadSize>(x.row(r) + h, table.cosines(first_position + r % length),
                                                       table.sines(first_position + r % length));
    });
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Turns every head of every row in place. Rows are the tokens of sequences of equal length, one sequence after the
/// other; the first token of each stands at `first_position`.
///
/// Shapes: x [sequences · length, heads · HeadSize].
/// Throws: argument_error, x untouched, where the rows are no whole sequences or a position is not in the table.
template <class T, int HeadSize, int Columns>
void rotate(context<cpu>& ctx, const rope_table<T, HeadSize>& table, view<T, dyn, Columns> x, index_t length,
            index_t first_position = 0) {
    detail::rotate_rows<false>(ctx, "rotate", table, x, length, first_position);
}

/// The inverse of rotate, which is also its gradient.
template <class T, int HeadSize, int Columns>
void rotate_back(context<cpu>& ctx, const rope_table<T, HeadSize>& table, view<T, dyn, Columns> x, index_t length,
                 index_t first_position = 0) {
    detail::rotate_rows<true>(ctx, "rotate_back", table, x, length, first_position);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
