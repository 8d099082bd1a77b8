// Products in exact float or double on the CUDA cores: the experts of float and double layers, and every router.
//
//     rows x[M, K] (gathered) · weight rows w[N, K]^T ──> sums in registers ──> what the caller makes of them
//
// Every sum is one chain of fused multiply-adds in ascending k from +0, which is the order of the CPU wing: the bits
// are the same. Threads of a warp read consecutive k of a row, so whole sectors; shared memory holds both operands with
// k outermost.
#pragma once

#include <gatefold/cuda/device.cuh>
#include <gatefold/ops/activation.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// A block's tile: Rows x Columns outputs by Threads threads, Depth steps of k at a time. A thread owns the outputs
/// (i · rows_apart + its row, j · columns_apart + its column).
template <class A, int Rows, int Columns, int Depth, int Threads, int RowsEach>
struct simt_tile {
    static constexpr int rows_each = RowsEach, rows_apart = Rows / RowsEach;
    static constexpr int columns_apart = Threads / rows_apart, columns_each = Columns / columns_apart;
    static constexpr int row_copies = Rows * Depth / Threads, column_copies = Columns * Depth / Threads;
    // A warp stores a run of k: the pitch spreads it over the banks.
    static constexpr int spread = Depth >= 32 ? 1 : 32 / Depth;
    static constexpr int row_pitch = Rows + spread, column_pitch = Columns + spread;
    static_assert(columns_apart * columns_each == Columns && rows_apart * rows_each == Rows);
    static_assert(row_copies * Threads == Rows * Depth && column_copies * Threads == Columns * Depth);
    static_assert(Threads % Depth == 0);

    A rows[std::size_t{Depth}][std::size_t{row_pitch}];
    A columns[std::size_t{Depth}][std::size_t{column_pitch}];
};

/// The tile of simt_experts.
inline constexpr int simt_rows = 32, simt_columns = 64;

/// Arguments of one grouped product.
template <class T>
struct grouped_product {
    using A = accumulate_t<T>;
    const T* in = nullptr;  ///< rows of tokens, or of activations
    index_t in_stride = 0;
    const T* weights = nullptr;  ///< [experts, weight rows, K]
    const T* bias = nullptr;     ///< [experts, weight rows]
    T* out = nullptr;            ///< row of the plan, or token where there is no plan
    index_t out_stride = 0;
    T* pre = nullptr;  ///< pre-activations for the tape, or null
    const tile* tiles = nullptr;
    const std::int32_t* tile_count = nullptr;
    const std::int32_t* pairs = nullptr;  ///< pair of each row of the plan: the gather
    const A* factor = nullptr;            ///< by pair, multiplies the input
    int slots = 1;
    int rows = 0;  ///< without tiles: all rows, expert 0
    A limit = 0;
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// No factor for the rows.
struct no_factor {};

/// acc[i][j] = Σ_k row(i) · column(j). `row_of(m)` and `column_of(n)` give pointers to K elements, or null for zeros;
/// `factor_of(m)` multiplies the elements of a row, rounded to X.
template <class Tile, int K, int Threads, class X, class W, class A, class RowOf, class ColumnOf, class FactorOf>
__device__ __forceinline__ void simt_product(Tile& shared,
                                             A (&acc)[std::size_t{Tile::rows_each}][std::size_t{Tile::columns_each}],
                                             RowOf row_of, ColumnOf column_of, FactorOf factor_of) {
    constexpr int depth = static_cast<int>(sizeof(shared.rows) / sizeof(shared.rows[0]));
    constexpr int together = Threads / depth;
    constexpr bool scales = !std::is_same_v<FactorOf, no_factor>;
    const int thread = static_cast<int>(threadIdx.x), k_mine = thread % depth, first = thread / depth;
    const int row = thread / Tile::columns_apart, column = thread % Tile::columns_apart;
    const X* rows[std::size_t{Tile::row_copies}];
    [[maybe_unused]] A factors[std::size_t{Tile::row_copies}];
    const W* columns[std::size_t{Tile::column_copies}];
    GATEFOLD_UNROLL
    for (int i = 0; i < Tile::row_copies; ++i) {
        rows[i] = row_of(first + i * together);
        if constexpr (scales) factors[i] = factor_of(first + i * together);
    }
    GATEFOLD_UNROLL
    for (int j = 0; j < Tile::column_copies; ++j) columns[j] = column_of(first + j * together);
    A next_rows[std::size_t{Tile::row_copies}], next_columns[std::size_t{Tile::column_copies}];
    const auto load = [&](int k0) {
        const int k = k0 + k_mine;
        GATEFOLD_UNROLL
        for (int i = 0; i < Tile::row_copies; ++i) {
            next_rows[i] = rows[i] && k < K ? to_accumulate(rows[i][k]) : A(0);
            if constexpr (scales)
                next_rows[i] = to_accumulate(from_accumulate<X>(gatefold::mul(next_rows[i], factors[i])));
        }
        GATEFOLD_UNROLL
        for (int j = 0; j < Tile::column_copies; ++j)
            next_columns[j] = columns[j] && k < K ? to_accumulate(columns[j][k]) : A(0);
    };
    const auto step = [&](int k) {
        A x[std::size_t{Tile::rows_each}], w[std::size_t{Tile::columns_each}];
        GATEFOLD_UNROLL
        for (int i = 0; i < Tile::rows_each; ++i) x[i] = shared.rows[k][row + i * Tile::rows_apart];
        GATEFOLD_UNROLL
        for (int j = 0; j < Tile::columns_each; ++j) w[j] = shared.columns[k][column + j * Tile::columns_apart];
        GATEFOLD_UNROLL
        for (int i = 0; i < Tile::rows_each; ++i) {
            GATEFOLD_UNROLL
            for (int j = 0; j < Tile::columns_each; ++j) acc[i][j] = gatefold::fma(x[i], w[j], acc[i][j]);
        }
    };

    GATEFOLD_UNROLL
    for (int i = 0; i < Tile::rows_each; ++i) {
        GATEFOLD_UNROLL
        for (int j = 0; j < Tile::columns_each; ++j) acc[i][j] = A(0);
    }
    load(0);
    for (int k0 = 0; k0 < K; k0 += depth) {
        __syncthreads();  // the block before has been read
        GATEFOLD_UNROLL
        for (int i = 0; i < Tile::row_copies; ++i) shared.rows[k_mine][first + i * together] = next_rows[i];
        GATEFOLD_UNROLL
        for (int j = 0; j < Tile::column_copies; ++j) shared.columns[k_mine][first + j * together] = next_columns[j];
        __syncthreads();
        if (k0 + depth < K) load(k0 + depth);
        // Steps beyond K would add zeros, and +0 is not neutral to -0.
        if (K % depth == 0 || k0 + depth <= K) {
            GATEFOLD_UNROLL
            for (int k = 0; k < depth; ++k) step(k);
        } else {
            for (int k = 0; k < K % depth; ++k) step(k);
        }
    }
}

/// One projection of all experts. Up: N is the inner width F, weight rows are the gate rows before the up rows, and
/// the activation is applied; else N is the width of the output.
template <class T, int N, int K, bool Up, activation Act, bool Bias, bool Factor>
__global__ void __launch_bounds__(128) simt_experts(const grouped_product<T> p) {
    using A = accumulate_t<T>;
    constexpr bool gated = Up && gated_activation<Act>;
    constexpr int tile_rows = simt_rows, tile_columns = simt_columns, weight_rows = gated ? 2 * N : N;
    using shape = simt_tile<A, tile_rows, tile_columns, 16, 128, 4>;
    constexpr int features = gated ? tile_columns / 2 : tile_columns;
    __shared__ shape shared;

    tile mine{0, static_cast<std::int32_t>(blockIdx.x) * tile_rows, 0, 0};
    if (p.tiles) {
        if (static_cast<int>(blockIdx.x) >= *p.tile_count) return;
        mine = p.tiles[blockIdx.x];
    } else {
        mine.rows = p.rows - mine.row < tile_rows ? p.rows - mine.row : tile_rows;
    }
    const int first = static_cast<int>(blockIdx.y) * features;
    const T* weights = p.weights + static_cast<index_t>(mine.expert) * weight_rows * K;

    // Column n of the tile: features run inside a half, gate and up of a feature are neighbours in a thread.
    const auto weight_row = [&](int n) {
        if constexpr (gated) {
            const int j = n / shape::columns_apart, f = first + n % shape::columns_apart + j / 2 * shape::columns_apart;
            return f < N ? f + j % 2 * N : -1;
        } else {
            return first + n < N ? first + n : -1;
        }
    };
    const auto row_of = [&](int m) -> const T* {
        if (m >= mine.rows) return nullptr;
        const index_t r = mine.row + m;
        return p.in + (p.pairs ? p.pairs[r] / p.slots : r) * p.in_stride;
    };
    const auto column_of = [&](int n) -> const T* {
        const int r = weight_row(n);
        return r < 0 ? nullptr : weights + static_cast<index_t>(r) * K;
    };
    A acc[std::size_t{shape::rows_each}][std::size_t{shape::columns_each}];
    if constexpr (Factor)
        simt_product<shape, K, 128, T, T>(shared, acc, row_of, column_of, [&](int m) {
            return m < mine.rows ? p.factor[p.pairs ? p.pairs[mine.row + m] : mine.row + m] : A(0);
        });
    else
        simt_product<shape, K, 128, T, T>(shared, acc, row_of, column_of, no_factor{});

    const int thread = static_cast<int>(threadIdx.x);
    const T* bias = p.bias + (Bias ? static_cast<index_t>(mine.expert) * weight_rows : 0);
    GATEFOLD_UNROLL
    for (int i = 0; i < shape::rows_each; ++i) {
        const int m = thread / shape::columns_apart + i * shape::rows_apart;
        if (m >= mine.rows) continue;
        const index_t r = mine.row + m;
        GATEFOLD_UNROLL
        for (int j = 0; j < shape::columns_each; j += gated ? 2 : 1) {
            const int n = thread % shape::columns_apart + (gated ? j / 2 : j) * shape::columns_apart + first;
            if (n >= N) continue;
            A value = acc[i][j];
            if constexpr (Bias) value = value + to_accumulate(bias[n]);
            if constexpr (gated) {
                A upper = acc[i][j + 1];
                if constexpr (Bias) upper = upper + to_accumulate(bias[N + n]);
                if (p.pre) {
                    p.pre[r * 2 * N + n] = from_accumulate<T>(value);
                    p.pre[r * 2 * N + N + n] = from_accumulate<T>(upper);
                }
                value = gatefold::activate<Act>(value, upper, p.limit);
            } else if constexpr (Up) {
                if (p.pre) p.pre[r * N + n] = from_accumulate<T>(value);
                value = gatefold::activate<Act>(value, p.limit);
            }
            p.out[r * p.out_stride + n] = from_accumulate<T>(value);
        }
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
