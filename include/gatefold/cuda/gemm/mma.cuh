// Grouped products of 16-bit layers on the tensor cores: what the two kernels share.
//
//     rows (gathered) ──cp.async──> shared ring ──ldmatrix──┐
//     weights, packed or as the hub has them ──────────────┴──> mma.sync, float sums ──> bias, activation ──> rows
//
// Weights are the A operand, 16 wide; rows of tokens are B, 8 wide: padding costs at most 7 rows per tile. Every output
// is one chain of mma over ascending blocks of 16 k with one float accumulator, in both kernels and every tile size.
#pragma once

#include <gatefold/cuda/device/ptx.cuh>
#include <gatefold/cuda/experts/layout.hpp>
#include <gatefold/cuda/gemm/simt.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// What one projection is, as scalars: T storage type, N outputs, K summed over, activation, where weights lie.
/// `InputAligned`: rows of the input begin at multiples of 16 bytes. `Edge`: rows of the output may end at N, which is
/// no multiple of 16. `Listed`: rows belong to several experts, a list has their tiles. `WithShared`: the shared expert
/// rides along.
template <class T, int N, int K, bool Up, activation Act, bool Bias, bool Packed, bool InputAligned, bool Edge,
          bool Listed, bool WithShared = false>
struct projection_of {
    using value_type = T;
    using arguments = grouped_product<T>;
    static constexpr bool sums = false;
    static constexpr bool gated = Up && gated_activation<Act>, up = Up, bias = Bias, packed = Packed, edge = Edge,
                          listed = Listed, with_shared = WithShared;
    static constexpr bool input_aligned = InputAligned, weights_aligned = K % 8 == 0;
    static constexpr activation act = Act;
    static constexpr int outputs = N, depth = K;
    /// Elements of an input row that may be read: our own rows are zero up to a multiple of 8.
    static constexpr int readable = Up ? K : (K + 7) / 8 * 8;
    using shape = projection_shape<gated, N, K>;
    static constexpr int weight_rows = gated ? 2 * N : N;
    /// Elements of one expert.
    static constexpr index_t expert_elements = Packed ? shape::elements : index_t{weight_rows} * K;
};

/// The same projection, of a layer that adds its rows up per token.
template <class P>
struct summed : P {
    using arguments = summed_product<typename P::value_type>;
    static constexpr bool sums = true;
};
/// P for the arguments Product.
template <class Product, class P>
using projection_for = std::conditional_t<Product::sums, summed<P>, P>;

/// Item i of a persistent kernel: a tile of rows and a piece of the outputs. Tiles of one expert are neighbours, so
/// that its weights are read from memory once; after `Together` tiles the next piece comes, so that the rows of these
/// tiles are still in the second-level cache.
struct item_place {
    tile rows;
    int piece;
};
template <class P, int Together, class T>
__device__ __forceinline__ item_place item_at(const grouped_product<T>& p, int item, int tiles, int pieces,
                                              int tile_rows) {
    item_place at;
    int i = item;
    if constexpr (Together == 0) {
        at.piece = item / tiles;
        i -= at.piece * tiles;
    } else {
        const int first = item / (Together * pieces) * Together, inner = item - first * pieces;
        const int count = tiles - first < Together ? tiles - first : Together;
        at.piece = inner / count;
        i = first + inner - at.piece * count;
    }
    at.rows = tile_at<P::with_shared>(p, i, tile_rows);
    return at;
}

/// A chunk of 8 elements of an input row, `valid` of which may be read. Where rows are whole stages of `Depth`
/// elements, `from` lies within one also if nothing is read: choosing another address would be a tenth of the main
/// loop.
template <class P, int Depth, class T>
__device__ __forceinline__ void copy_row_chunk(std::uint32_t to, const T* from, const T* anywhere, int valid) {
    if constexpr (P::input_aligned)
        copy_or_zero(to, P::readable % Depth == 0 || valid > 0 ? from : anywhere, valid <= 0);
    else
        copy_elements(to, from, valid);
}

/// What a thread copies of the rows of a tile into a stage [rows x 64] of kernel shape S: its chunk of every
/// rows_at_once-th row, chunk c of row r at c ^ (r & 7). What stays within an item is computed by move_to().
template <class P, class S>
class row_cursor {
    using T = typename P::value_type;
    static constexpr int BK = S::depth, chunks = BK / 8, rows_at_once = S::threads / chunks;
    static constexpr int copies = S::rows / rows_at_once;
    static_assert(BK == 64, "the swizzle is written for rows of 128 bytes");
    static_assert(rows_at_once % 8 == 0, "later rows of a thread keep its swizzle");
    const int row_, chunk_;
    const std::uint32_t to_;
    const T* from_[std::size_t{copies}];
    int readable_[std::size_t{copies}];

public:
    __device__ __forceinline__ row_cursor(int thread, std::uint32_t ring_rows)
        : row_(thread / chunks),
          chunk_(thread % chunks),
          to_(ring_rows + static_cast<std::uint32_t>(row_ * (BK * 2) + (chunk_ ^ (row_ & 7)) * 16)) {}

    __device__ __forceinline__ void move_to(const grouped_product<T>& p, const tile& at) {
        const T* in = input_of<P::with_shared>(p, at.expert);
        const index_t stride = stride_of<P::with_shared>(p, at.expert);
        GATEFOLD_UNROLL
        for (int i = 0; i < copies; ++i) {
            const int r = row_ + i * rows_at_once;
            index_t source = 0;
            if (r < at.rows) source = source_of<P::with_shared>(p, at.expert, at.row + r);
            from_[i] = in + source * stride + chunk_ * 8;
            readable_[i] = r < at.rows ? P::readable - chunk_ * 8 : 0;
        }
    }
    /// k in [BK · k_block, BK · k_block + 16 · steps) into stage `stage`.
    __device__ __forceinline__ void copy(const grouped_product<T>& p, int stage, int k_block, int steps) const {
        const std::uint32_t to = to_ + static_cast<std::uint32_t>(stage * S::row_bytes);
        GATEFOLD_UNROLL
        for (int i = 0; i < copies; ++i) {
            if (steps < BK / 16 && chunk_ >= 2 * steps) break;
            const int valid = P::readable % BK == 0 ? readable_[i] : readable_[i] - k_block * BK;
            copy_row_chunk<P, BK>(to + static_cast<std::uint32_t>(i * rows_at_once * (BK * 2)), from_[i] + k_block * BK,
                                  p.in, valid < 8 ? valid : 8);
        }
    }
};

/// Where lane `lane` of a 512-byte piece finds its 8 elements in the hub's layout: weight row and offset in k.
template <class P>
struct hub_lane {
    const typename P::value_type* row;  ///< null: padding
    int offset;

    __device__ __forceinline__ hub_lane(const typename P::value_type* expert, int strip, int lane) {
        const int matrix = lane / 8, r = matrix / 2 * 8 + lane % 8;
        const int n =
            strip < P::shape::strips ? weight_row_of(strip * 16 + r, P::gated, P::outputs, P::shape::groups) : -1;
        offset = matrix % 2 * 8;
        row = n < 0 ? nullptr : expert + static_cast<index_t>(n) * P::depth + offset;
    }
    __device__ __forceinline__ void copy(std::uint32_t to, int k, const typename P::value_type* anywhere) const {
        const int valid = row ? P::depth - k - offset : 0;
        if constexpr (P::weights_aligned)
            copy_streamed_or_zero(to, valid > 0 ? row + k : anywhere, valid <= 0);
        else
            copy_elements(to, row + k, valid);
    }
};

/// Sums of one strip and 8 rows, with bias and activation, as outputs of two rows: v0 of row 2 (lane%4), v1 of the
/// next.
template <class P>
struct finished_sums {
    float low[2], high[2];  ///< outputs of 8-row group 0 and (not gated) 1 of the strip
};
template <class P, class T>
__device__ __forceinline__ finished_sums<P> finish(const grouped_product<T>& p, const float (&sums)[4], int expert,
                                                   int strip, int lane, index_t row, int rows) {
    finished_sums<P> out{{sums[0], sums[1]}, {sums[2], sums[3]}};
    const int first = output_at(P::gated ? strip : 2 * strip, lane / 4, P::shape::groups);
    [[maybe_unused]] const int second = P::gated ? first : output_at(2 * strip + 1, lane / 4, P::shape::groups);
    if constexpr (P::bias) {
        const T* bias = bias_of<P::with_shared>(p, expert, P::weight_rows);
        const float b0 = first < P::outputs ? to_accumulate(bias[first]) : 0.0f;
        const float b1 = second < P::outputs ? to_accumulate(bias[P::gated ? P::outputs + second : second]) : 0.0f;
        GATEFOLD_UNROLL
        for (int i = 0; i < 2; ++i) {
            out.low[i] += b0;
            out.high[i] += b1;
        }
    }
    if constexpr (P::up) {
        if (p.pre) {
            GATEFOLD_UNROLL
            for (int i = 0; i < 2; ++i) {
                if (lane % 4 * 2 + i >= rows) continue;
                T* to = pre_of<P::with_shared>(p, expert, row + lane % 4 * 2 + i, P::weight_rows);
                if (first < P::outputs) to[first] = from_accumulate<T>(out.low[i]);
                if (second < P::outputs) to[P::gated ? P::outputs + second : second] = from_accumulate<T>(out.high[i]);
            }
        }
        const float limit = limit_of<P::with_shared>(p, expert);
        GATEFOLD_UNROLL
        for (int i = 0; i < 2; ++i) {
            if constexpr (P::gated) {
                out.low[i] = gatefold::activate<P::act>(out.low[i], out.high[i], limit);
            } else {
                out.low[i] = gatefold::activate<P::act>(out.low[i], limit);
                out.high[i] = gatefold::activate<P::act>(out.high[i], limit);
            }
        }
    }
    return out;
}

/// Adds a strip of 8 rows to the sums of their tokens.
template <class P, class Arguments>
__device__ __forceinline__ void add_strip(const Arguments& p, const finished_sums<P>& done, int strip, int lane,
                                          index_t row, int rows) {
    const int low = output_at(2 * strip, lane / 4, P::shape::groups);
    const int high = output_at(2 * strip + 1, lane / 4, P::shape::groups);
    GATEFOLD_UNROLL
    for (int i = 0; i < 2; ++i) {
        const int r = lane % 4 * 2 + i;
        if (r >= rows) continue;
        const index_t token = p.to.token_of(row + r);
        const float weight = p.to.weight_of(row + r);
        if (low < P::outputs) add_output(p.to, token, low, gatefold::mul(weight, done.low[i]));
        if (2 * strip + 1 < P::shape::groups && high < P::outputs)
            add_output(p.to, token, high, gatefold::mul(weight, done.high[i]));
    }
}

/// Puts a strip of 8 rows into the warp's window.
template <class P>
__device__ __forceinline__ void turn_strip(turned_window& w, const finished_sums<P>& done, int strip, int lane) {
    const int first = strip / 2 * 32;
    GATEFOLD_UNROLL
    for (int g = 0; g < 2; ++g) {
        if (2 * strip + g >= P::shape::groups) break;
        const int n = output_at(2 * strip + g, lane / 4, P::shape::groups) - first;
        GATEFOLD_UNROLL
        for (int i = 0; i < 2; ++i) w.at[lane % 4 * 2 + i][n] = g == 0 ? done.low[i] : done.high[i];
    }
}

/// Adds `Strips` strips of up to 8 rows to the sums of their tokens, a window at a time; `strips` of them exist.
template <class P, int Strips, int Warps, class Arguments, class SumsOf>
__device__ __forceinline__ void add_strips(const Arguments& p, const SumsOf& sums_of, int expert, int first, int strips,
                                           int warp, int lane, index_t row, int rows) {
    turned_window& window = window_of_warp<Warps>(warp);
    const int there = rows < 8 ? rows : 8;
    const index_t mine = row + (lane < there ? lane : 0), token = p.to.token_of(mine);
    const float weight = p.to.weight_of(mine);
    GATEFOLD_UNROLL
    for (int m = 0; m < Strips; ++m) {
        if (m >= strips) break;
        turn_strip<P>(window, finish<P>(p, sums_of(m), expert, first + m, lane, row, there), first + m, lane);
        if (m % 2 == 1 || m + 1 == strips)
            add_window<P::outputs>(p.to, window, token, weight, there, (first + m) / 2 * row_sums<bf16>::window, lane);
    }
}

/// Stores what this lane holds of one row: `Groups` consecutive 8-row groups from `first_group` on, a word of two
/// outputs each, after the transposition.
template <class P, int Groups, class T>
__device__ __forceinline__ void store_row(T* row, int first_group, const std::uint32_t (&words)[std::size_t{Groups}],
                                          int lane) {
    constexpr int full = P::shape::groups / 4 * 4;
    const auto piece = [&]<int Width>(int g, constant_of<Width>) {
        std::uint32_t v[std::size_t{Width}];
        GATEFOLD_UNROLL
        for (int t = 0; t < Width; ++t) v[t] = words[g + t];
        const int n = output_at(first_group + g, lane % 4 * 2, P::shape::groups);
        if constexpr (P::edge) {
            GATEFOLD_UNROLL
            for (int t = 0; t < Width; ++t) {
                if (n + 2 * t < P::outputs) row[n + 2 * t].bits = static_cast<std::uint16_t>(v[t]);
                if (n + 2 * t + 1 < P::outputs) row[n + 2 * t + 1].bits = static_cast<std::uint16_t>(v[t] >> 16);
            }
        } else {
            store_words(row + n, v);
        }
    };
    // Pieces follow the permutation: fours, then a pair, then a single group.
    if (Groups % 4 == 0 && first_group % 4 == 0 && first_group + Groups <= full) {
        GATEFOLD_UNROLL
        for (int g = 0; g + 4 <= Groups; g += 4) piece(g, constant_of<4>{});
        return;
    }
    if (Groups == 2 && first_group + 2 <= full) {
        piece(0, constant_of < Groups >= 2 ? 2 : 1 > {});
        return;
    }
    GATEFOLD_UNROLL
    for (int g = 0; g < Groups; ++g)
        if (first_group + g < P::shape::groups) piece(g, constant_of<1>{});
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
