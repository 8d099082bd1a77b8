// Rows times weights as they lie, [k][n] with columns side by side: packing them costs as much as a product of several
// rows.
//
//     up to 4 rows   c[r, n..] += a[r, k] · w[k, n..] for a few k at a time: whole rows of w in the order of memory
//     more           the tiles of packed products over some rows of w, which all tiles share
//
// Every sum is the chain of multiply(): ascending k from +0 or from what is there.
#pragma once

#include <limits>

#include <gatefold/cpu/gemm/gemm.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Rows of a group up to which its weights, B as they lie, are better not packed (bench backward_dx): packing widens
/// them once for all tiles, and rows at multiples of 4096 bytes displace one another in the caches.
template <class Sum, class B>
constexpr index_t most_unpacked_rows(index_t row_bytes) {
    if (sizeof(B) < sizeof(Sum)) return chain<Sum>::max_rows;
    return row_bytes % 4096 == 0 ? 32 : (std::numeric_limits<index_t>::max)();
}
/// Rows of weights that stay in the second-level cache from tile to tile while as many of the next are fetched.
constexpr index_t unpacked_depth(index_t row_bytes) { return row_bytes > 4096 ? 64 : 128; }

/// Steps of k whose numbers of R rows stand in registers beside the sums.
constexpr int few_rows_steps(int rows) { return vector_registers == 32 ? (rows < 4 ? 8 : 4) : 8 / rows; }

/// c[i, :] = (fresh ? 0 : c[i, :]) + Σ a[k][i] · w[k, :] over few_rows_steps(R) steps; `columns` is a multiple of two
/// registers. As many bytes as are read are fetched `ahead` bytes behind them.
template <int R, class Sum, class B>
GATEFOLD_NOINLINE void multiply_few(const Sum* a, const B* w, index_t stride, Sum* c, index_t row, index_t columns,
                                    bool fresh, index_t ahead) {
    // A line of 2-byte weights is two registers, used at once: rows of w may displace one another.
    constexpr int K = few_rows_steps(R), width = lanes<Sum>;
    constexpr int together = sizeof(B) < sizeof(Sum) && vector_registers == 32 ? 2 : 1;
    vec<Sum> x[std::size_t{K}][std::size_t{R}];
    GATEFOLD_UNROLL
    for (int k = 0; k < K; ++k) {
        GATEFOLD_UNROLL
        for (int i = 0; i < R; ++i) {
            x[k][i] = broadcast(a[k * R + i]);
            keep_apart(x[k][i].raw);
        }
    }
    for (index_t n = 0; n < columns; n += together * width, w += together * width, c += together * width) {
        vec<Sum> sums[std::size_t{R}][std::size_t{together}];
        GATEFOLD_UNROLL
        for (int i = 0; i < R; ++i) {
            GATEFOLD_UNROLL
            for (int j = 0; j < together; ++j) sums[i][j] = fresh ? zeros<Sum>() : load<Sum>(c + i * row + j * width);
        }
        const B* from = w;
        GATEFOLD_UNROLL
        for (int k = 0; k < K; ++k, from += stride) {
            prefetch<false>(reinterpret_cast<const char*>(from) + ahead);
            GATEFOLD_UNROLL
            for (int j = 0; j < together; ++j) {
                vec<Sum> y = load<Sum>(from + j * width);
                if (R > 1) keep_apart(y.raw);  // one load for all rows
                GATEFOLD_UNROLL
                for (int i = 0; i < R; ++i) sums[i][j] = fma(x[k][i], y, sums[i][j]);
            }
        }
        GATEFOLD_UNROLL
        for (int i = 0; i < R; ++i) {
            GATEFOLD_UNROLL
            for (int j = 0; j < together; ++j) store(c + i * row + j * width, sums[i][j]);
        }
    }
}

template <class Sum, class B>
using few_rows_kernel = void (*)(const Sum*, const B*, index_t, Sum*, index_t, index_t, bool, index_t);

/// c = (fresh ? 0 : c) + rows · w for tiles packed one behind the other as [steps][height]; w begins at the first step
/// and column, its rows `stride` apart, and `columns` is a multiple of two registers.
template <class Sum, class B>
void multiply_unpacked(const void* weights, index_t stride, const row_tiles& tiles, index_t steps, const Sum* a, Sum* c,
                       index_t row, index_t columns, bool fresh) {
    using form = chain<Sum, B>;
    constexpr int panel = 2 * lanes<Sum>;
    const auto strides = panel_strides<form>::of_rows(stride);
    const B* w = static_cast<const B*>(weights);
    const index_t row_bytes = stride * static_cast<index_t>(sizeof(B));
    index_t k = 0;
    if (tiles.rows <= few_rows) {
        const int rows = static_cast<int>(tiles.rows), together = few_rows_steps(rows);
        static_assert(few_rows == 4);
        static constexpr few_rows_kernel<Sum, B> kernels[] = {&multiply_few<1, Sum, B>, &multiply_few<2, Sum, B>,
                                                              &multiply_few<3, Sum, B>, &multiply_few<4, Sum, B>};
        for (; k + together <= steps; k += together, fresh = false)
            kernels[rows - 1](a + k * rows, w + k * stride, stride, c, row, columns, fresh, together * row_bytes);
    }
    for (index_t depth; k < steps; k += depth, fresh = false) {
        depth = unpacked_depth(row_bytes);
        if (steps - k < depth) depth = steps - k;
        for (index_t j = 0; j < columns; j += panel) {
            const B* from = w + k * stride + j;
            lookahead ahead{0, reinterpret_cast<const char*>(from + depth * stride),
                            panel / 2 * static_cast<index_t>(sizeof(B)), row_bytes};
            for (index_t t = 0; t < tiles.tiles; ++t) {
                const index_t r = tiles.begin(t);
                const int height = static_cast<int>(tiles.begin(t + 1) - r);
                kernel_for<form, 2>(height)(depth, a + r * steps + k * height, from, strides, c + r * row + j, row,
                                            fresh, ahead);
                ahead = {0, reinterpret_cast<const char*>(a), 0, 0};
            }
        }
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
