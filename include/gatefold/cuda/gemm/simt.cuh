// Products in exact float or double on the CUDA cores: the experts of float and double layers, and every router.
//
//     rows x[M, K] (gathered) ──cp.async──┐
//     weight rows w[N, K] ────────────────┴──> shared ring, as stored ──16 bytes──> sums in registers ──> the caller
//
// Every sum is one chain of fused multiply-adds in ascending k from +0, which is the order of the CPU wing: the bits
// are the same. A short call waits for memory and for that chain: the ring keeps memory busy, and the next operands are
// on their way from shared memory while the present ones are multiplied.
#pragma once

#include <gatefold/cuda/device/device.cuh>
#include <gatefold/cuda/device/ptx.cuh>
#include <gatefold/cuda/experts/grouped.cuh>
#include <gatefold/ops/activation.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// Neighbouring elements of a row, one access. 16-bit floats stay pairs in words: a shift or a mask widens each.
template <class T, int N>
struct alignas(N * sizeof(T)) element_run {
    using word = std::conditional_t<std::is_same_v<T, bf16>, std::uint32_t, T>;
    word words[N * sizeof(T) / sizeof(word)];

    __device__ __forceinline__ accumulate_t<T> wide(int i) const {
        if constexpr (std::is_same_v<T, bf16>)
            return __uint_as_float(i % 2 ? words[i / 2] & 0xffff0000u : words[i / 2] << 16);
        else
            return to_accumulate(words[i]);
    }
};

/// A block's tile: Rows x Columns outputs by Threads threads, Depth steps of k at a time for 16-bit types, fewer for
/// wider ones, up to MostStages of them in shared memory. A thread owns the outputs (i · rows_apart + its row,
/// j · columns_apart + its column). X and W are the types of the rows and of the weights.
template <class X, class W, int Rows, int Columns, int Depth, int MostStages, int Threads, int RowsEach>
struct simt_tile {
    static constexpr int rows = Rows, columns = Columns;
    static constexpr int rows_each = RowsEach, rows_apart = Rows / RowsEach;
    static constexpr int columns_apart = Threads / rows_apart, columns_each = Columns / columns_apart;
    static_assert(columns_apart * columns_each == Columns && rows_apart * rows_each == Rows);
    static constexpr int widest = static_cast<int>(sizeof(X) > sizeof(W) ? sizeof(X) : sizeof(W));
    static constexpr int depth = Depth * 2 / widest;
    /// Elements of a chunk of 16 bytes, chunks of all rows in a stage, copies of a thread.
    static constexpr int x_each = static_cast<int>(16 / sizeof(X)), w_each = static_cast<int>(16 / sizeof(W));
    static constexpr int x_chunks = Rows * depth / x_each, w_chunks = Columns * depth / w_each;
    static constexpr int row_copies = (x_chunks + Threads - 1) / Threads;
    static constexpr int column_copies = (w_chunks + Threads - 1) / Threads;
    static_assert(depth % x_each == 0 && depth % w_each == 0);
    /// Bytes from row to row: a chunk more than there is, so that eight rows begin in different banks.
    static constexpr int x_pitch = depth * static_cast<int>(sizeof(X)) + 16;
    static constexpr int w_pitch = depth * static_cast<int>(sizeof(W)) + 16;
    static constexpr int stage_bytes = Rows * x_pitch + Columns * w_pitch;
    static constexpr int room = 46 * 1024 / stage_bytes, stages = room < MostStages ? room : MostStages;
    static_assert(stages >= 2, "a ring");

    alignas(16) unsigned char ring[std::size_t{stages}][std::size_t{stage_bytes}];
};

/// The tile of simt_experts.
inline constexpr int simt_rows = 32, simt_columns = 64;

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// No factor for the rows.
struct no_factor {};

/// Up to 16 bytes of a row on their way to shared memory: `left` elements of it are there, the others are zero.
template <class X>
__device__ __forceinline__ void copy_chunk(unsigned char* to, const X* from, int left, bool direct) {
    constexpr int whole = static_cast<int>(16 / sizeof(X));
    if (direct && left > 0) {
        copy_streamed(shared_address(to), from);
    } else {
        X* cells = reinterpret_cast<X*>(to);
        GATEFOLD_UNROLL
        for (int i = 0; i < whole; ++i) cells[i] = i < left ? from[i] : X{};
    }
}

/// acc[i][j] = Σ_k row(i) · column(j). `row_of(m)` and `column_of(n)` give pointers to K elements, or null for rows
/// that do not exist, after which there are none that do; `factor_of(m)` multiplies the elements of a row, rounded to
/// X.
template <class Tile, int K, int Threads, class X, class W, class A, class RowOf, class ColumnOf, class FactorOf>
__device__ __forceinline__ void simt_product(Tile& shared,
                                             A (&acc)[std::size_t{Tile::rows_each}][std::size_t{Tile::columns_each}],
                                             RowOf row_of, ColumnOf column_of, FactorOf factor_of) {
    constexpr bool scales = !std::is_same_v<FactorOf, no_factor>;
    constexpr int depth = Tile::depth, blocks = (K + depth - 1) / depth;
    constexpr int row_copies = Tile::row_copies, column_copies = Tile::column_copies;
    constexpr int x_each = Tile::x_each, w_each = Tile::w_each, x_line = depth / x_each, w_line = depth / w_each;
    const int thread = static_cast<int>(threadIdx.x);
    const int row = thread / Tile::columns_apart, column = thread % Tile::columns_apart;

    // Copies: thread q moves chunk q % line of row q / line. Rows that do not exist are zero from the start.
    const X* from_rows[std::size_t{row_copies}];
    const W* from_columns[std::size_t{column_copies}];
    int to_rows[std::size_t{row_copies}], to_columns[std::size_t{column_copies}];
    bool direct = K % x_each == 0 && K % w_each == 0;
    const auto clear = [&](int at) {
        GATEFOLD_UNROLL
        for (int s = 0; s < int{Tile::stages}; ++s) *reinterpret_cast<uint4*>(shared.ring[s] + at) = uint4{};
    };
    GATEFOLD_UNROLL
    for (int i = 0; i < row_copies; ++i) {
        const int q = i * Threads + thread, m = q / x_line;
        const X* from = q < Tile::x_chunks ? row_of(m) : nullptr;
        direct = direct && reinterpret_cast<std::uintptr_t>(from) % 16 == 0;
        from_rows[i] = from ? from + q % x_line * x_each : nullptr;
        to_rows[i] = m * Tile::x_pitch + q % x_line * 16;
        if (!from && q < Tile::x_chunks) clear(to_rows[i]);
    }
    GATEFOLD_UNROLL
    for (int j = 0; j < column_copies; ++j) {
        const int q = j * Threads + thread, n = q / w_line;
        const W* from = q < Tile::w_chunks ? column_of(n) : nullptr;
        direct = direct && reinterpret_cast<std::uintptr_t>(from) % 16 == 0;
        from_columns[j] = from ? from + q % w_line * w_each : nullptr;
        to_columns[j] = Tile::rows * Tile::x_pitch + n * Tile::w_pitch + q % w_line * 16;
        if (!from && q < Tile::w_chunks) clear(to_columns[j]);
    }
    int load_block = 0, load_stage = 0;
    const auto load = [&] {
        if (load_block < blocks) {
            unsigned char* stage = shared.ring[load_stage];
            const int k = load_block * depth, left = K - k;
            GATEFOLD_UNROLL
            for (int i = 0; i < row_copies; ++i)
                if (from_rows[i])
                    copy_chunk<X>(stage + to_rows[i], from_rows[i] + k, left - (i * Threads + thread) % x_line * x_each,
                                  direct);
            GATEFOLD_UNROLL
            for (int j = 0; j < column_copies; ++j)
                if (from_columns[j])
                    copy_chunk<W>(stage + to_columns[j], from_columns[j] + k,
                                  left - (j * Threads + thread) % w_line * w_each, direct);
            ++load_block;
            load_stage = load_stage + 1 == Tile::stages ? 0 : load_stage + 1;
        }
        copy_commit();
    };
    GATEFOLD_PRAGMA(unroll 1)
    for (int s = 0; s < Tile::stages - 1; ++s) load();

    [[maybe_unused]] A factors[std::size_t{Tile::rows_each}];
    GATEFOLD_UNROLL
    for (int i = 0; i < Tile::rows_each; ++i) {
        if constexpr (scales) factors[i] = factor_of(row + i * Tile::rows_apart);
        GATEFOLD_UNROLL
        for (int j = 0; j < Tile::columns_each; ++j) acc[i][j] = A(0);
    }
    // Threads of rows that do not exist only copy; where the first rows are all there are, the others cost nothing.
    const bool works = row_of(row) != nullptr;
    const bool first_only = Tile::rows_each > 1 && row_of(Tile::rows_apart) == nullptr;

    // A run of k in registers: one chunk of the wider type, several where a thread has a single output.
    constexpr int together = 16 / Tile::widest;
    constexpr int chunks = Tile::rows_each * Tile::columns_each == 1 && depth >= 4 * together ? 2 : 1;
    constexpr int run = chunks * together;
    using some_x = element_run<X, together>;
    using some_w = element_run<W, together>;
    const auto read = [&]<int Rows>(const unsigned char* stage, int k, auto& x, auto& w, constant_of<Rows>) {
        GATEFOLD_UNROLL
        for (int c = 0; c < chunks; ++c) {
            GATEFOLD_UNROLL
            for (int i = 0; i < Rows; ++i)
                x[i][c] = *reinterpret_cast<const some_x*>(stage + (row + i * Tile::rows_apart) * Tile::x_pitch +
                                                           (k + c * together) * static_cast<int>(sizeof(X)));
            GATEFOLD_UNROLL
            for (int j = 0; j < Tile::columns_each; ++j)
                w[j][c] = *reinterpret_cast<const some_w*>(stage + Tile::rows * Tile::x_pitch +
                                                           (column + j * Tile::columns_apart) * Tile::w_pitch +
                                                           (k + c * together) * static_cast<int>(sizeof(W)));
        }
    };
    const auto multiply = [&]<int Rows>(const auto& x, const auto& w, int count, constant_of<Rows>) {
        GATEFOLD_UNROLL
        for (int t = 0; t < run; ++t) {
            if (t >= count) break;
            A wide[std::size_t{Tile::columns_each}];
            GATEFOLD_UNROLL
            for (int j = 0; j < Tile::columns_each; ++j) wide[j] = w[j][t / together].wide(t % together);
            GATEFOLD_UNROLL
            for (int i = 0; i < Rows; ++i) {
                A v = x[i][t / together].wide(t % together);
                if constexpr (scales) v = to_accumulate(from_accumulate<X>(gatefold::mul(v, factors[i])));
                GATEFOLD_UNROLL
                for (int j = 0; j < Tile::columns_each; ++j) acc[i][j] = gatefold::fma(v, wide[j], acc[i][j]);
            }
        }
    };
    const auto multiply_block = [&]<int Rows>(const unsigned char* stage, bool whole, constant_of<Rows> live) {
        some_x x[2][std::size_t{Rows}][std::size_t{chunks}];
        some_w w[2][std::size_t{Tile::columns_each}][std::size_t{chunks}];
        // Steps beyond K would add zeros, and +0 is not neutral to -0.
        if (K % depth == 0 || whole) {
            static_assert(depth % (2 * run) == 0);
            read(stage, 0, x[0], w[0], live);
            // A loop that is not unrolled: within straight code the compiler moves reads down to where they are needed.
            GATEFOLD_PRAGMA(unroll 1)
            for (int k = 0; k < depth; k += 2 * run) {
                read(stage, k + run, x[1], w[1], live);
                multiply(x[0], w[0], run, live);
                read(stage, (k + 2 * run) % depth, x[0], w[0], live);
                multiply(x[1], w[1], run, live);
            }
        } else {
            GATEFOLD_PRAGMA(unroll 1)
            for (int k = 0; k < K % depth; k += run) {
                read(stage, k, x[0], w[0], live);
                multiply(x[0], w[0], K % depth - k, live);
            }
        }
    };
    int stage_number = 0;
    GATEFOLD_PRAGMA(unroll 1)
    for (int b = 0; b < blocks; ++b) {
        copy_wait<Tile::stages - 2>();
        __syncthreads();  // the copies of all threads are there, and the stage to be filled next has been read
        load();
        const unsigned char* stage = shared.ring[stage_number];
        stage_number = stage_number + 1 == Tile::stages ? 0 : stage_number + 1;
        if (!works) continue;
        if (first_only)
            multiply_block(stage, b < blocks - 1, constant_of<1>{});
        else
            multiply_block(stage, b < blocks - 1, constant_of<int{Tile::rows_each}>{});
    }
    copy_wait<0>();
    __syncthreads();  // the memory may be used for something else
}

/// One projection of all experts. Up: N is the inner width F, weight rows are the gate rows before the up rows, and
/// the activation is applied; else N is the width of the output.
template <class T, int N, int K, bool Up, activation Act, bool Bias, bool Factor, bool WithShared = false,
          class Arguments = grouped_product<T>>
__global__ void __launch_bounds__(128) simt_experts(const Arguments p) {
    using A = accumulate_t<T>;
    constexpr bool gated = Up && gated_activation<Act>;
    constexpr int tile_rows = simt_rows, tile_columns = simt_columns, weight_rows = gated ? 2 * N : N;
    using shape = simt_tile<T, T, tile_rows, tile_columns, 32, 4, 128, 4>;
    constexpr int features = gated ? tile_columns / 2 : tile_columns;
    __shared__ shape shared;
    if constexpr (Arguments::sums && Up) clear_sums<K>(p.to);

    const int number = static_cast<int>(blockIdx.x);
    if (p.tiles && number >= tile_count_of<WithShared>(p, tile_rows)) return;
    const tile mine = tile_at<WithShared>(p, number, tile_rows);
    const int first = static_cast<int>(blockIdx.y) * features;
    const T* weights = weights_of<WithShared>(p, mine.expert, index_t{weight_rows} * K);

    const T* in = input_of<WithShared>(p, mine.expert);
    const index_t in_stride = stride_of<WithShared>(p, mine.expert);

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
        return in + source_of<WithShared>(p, mine.expert, mine.row + m) * in_stride;
    };
    const auto column_of = [&](int n) -> const T* {
        const int r = weight_row(n);
        return r < 0 ? nullptr : weights + static_cast<index_t>(r) * K;
    };
    A acc[std::size_t{shape::rows_each}][std::size_t{shape::columns_each}];
    if constexpr (Factor)
        simt_product<shape, K, 128, T, T>(shared, acc, row_of, column_of,
                                          [&](int m) { return factor_of<WithShared>(p, mine, m); });
    else
        simt_product<shape, K, 128, T, T>(shared, acc, row_of, column_of, no_factor{});

    const int thread = static_cast<int>(threadIdx.x);
    [[maybe_unused]] const T* bias = nullptr;
    if constexpr (Bias) bias = bias_of<WithShared>(p, mine.expert, weight_rows);
    [[maybe_unused]] const A limit = limit_of<WithShared>(p, mine.expert);
    GATEFOLD_UNROLL
    for (int i = 0; i < shape::rows_each; ++i) {
        const int m = thread / shape::columns_apart + i * shape::rows_apart;
        if (m >= mine.rows) continue;
        const index_t r = mine.row + m;
        [[maybe_unused]] T* pre = nullptr;
        if constexpr (Up) pre = p.pre ? pre_of<WithShared>(p, mine.expert, r, weight_rows) : nullptr;
        GATEFOLD_UNROLL
        for (int j = 0; j < shape::columns_each; j += gated ? 2 : 1) {
            const int n = thread % shape::columns_apart + (gated ? j / 2 : j) * shape::columns_apart + first;
            if (n >= N) continue;
            A value = acc[i][j];
            if constexpr (Bias) value = value + to_accumulate(bias[n]);
            if constexpr (gated) {
                A upper = acc[i][j + 1];
                if constexpr (Bias) upper = upper + to_accumulate(bias[N + n]);
                if (pre) {
                    pre[n] = from_accumulate<T>(value);
                    pre[N + n] = from_accumulate<T>(upper);
                }
                value = gatefold::activate<Act>(value, upper, limit);
            } else if constexpr (Up) {
                if (pre) pre[n] = from_accumulate<T>(value);
                value = gatefold::activate<Act>(value, limit);
            }
            if constexpr (Arguments::sums && !Up)
                add_output(p.to, p.to.token_of(r), n, gatefold::mul(p.to.weight_of(r), value));
            else
                p.out[r * p.out_stride + n] = from_accumulate<T>(value);
        }
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
