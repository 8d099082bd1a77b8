// The grouped product for many rows: a block multiplies a tile of up to 128 rows with 256 weight rows, or, where these
// would be too few tiles for the device, 64 rows with 64 weight rows.
//
//     ring of stages [rows x 64][weight rows x 64] ── barrier per stage ──> warp tiles of 64 x 64 or 16 x 64
//
// Persistent: the copies run across tiles and experts. Rows of a tile that do not exist are skipped by eights.
#pragma once

#include <gatefold/cuda/experts/wave_model.hpp>
#include <gatefold/cuda/gemm/mma.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// Rows x weight rows of a tile, depth and number of stages, warps along rows and along weight rows.
template <int Rows, int WeightRows, int Depth, int Stages, int RowWarps, int WeightWarps>
struct tile_shape {
    static constexpr int rows = Rows, weight_rows = WeightRows, depth = Depth, stages = Stages, row_warps = RowWarps,
                         weight_warps = WeightWarps, threads = 32 * RowWarps * WeightWarps;
    static constexpr int strips = WeightRows / 16;
    /// Less than a block of packed strips: a warp copies one strip.
    static constexpr bool narrow = strips < block_strips;
    static constexpr int blocks = narrow ? 1 : strips / block_strips;
    static constexpr int warp_strips = strips / WeightWarps, warp_groups = Rows / RowWarps / 8;
    static constexpr int row_bytes = Rows * Depth * 2, weight_bytes = WeightRows * Depth * 2;
    static constexpr int shared_bytes = Stages * (row_bytes + weight_bytes);
    static constexpr int together = 16;  ///< tiles before the next piece
    static constexpr arrangement cut = narrow       ? arrangement::tiles_of_64x64
                                       : Rows == 64 ? arrangement::tiles_of_64x256
                                                    : arrangement::tiles_of_128x256;
    static_assert(warp_strips == 4 && (narrow ? strips * 32 == threads : WeightRows % (16 * block_strips) == 0));
    static_assert(warp_groups == 8 || warp_groups == 2, "the ladder of row counts has these heights");
};
using narrow_tiles = tile_shape<64, 64, 64, 6, 4, 1>;
using tiles_of_64 = tile_shape<64, 256, 64, 3, 1, 4>;
using tiles_of_128 = tile_shape<128, 256, 64, 3, 2, 4>;

template <class P, class S>
__global__ void __launch_bounds__(S::threads, 1) multiply_tiles(const typename P::arguments p) {
    using T = typename P::value_type;
    using X = typename P::shape;
    constexpr int BK = S::depth, k_blocks = (X::padded + BK - 1) / BK, k_last = (X::padded - (k_blocks - 1) * BK) / 16;
    constexpr int pieces = (X::strips + S::strips - 1) / S::strips;
    constexpr int neighbours = S::narrow ? S::strips : block_strips;  // strips side by side in a stage
    constexpr int block_bytes = BK / 16 * neighbours * 512, block_copies = block_bytes / 16 / S::threads;
    constexpr int warps = S::threads / 32, hub_lanes = neighbours / warps > 0 ? neighbours / warps : 1;
    constexpr bool ragged_k = k_last * 16 != BK, ragged_strips = X::strips % S::strips != 0;
    static_assert(warps <= block_strips);

    extern __shared__ __align__(128) unsigned char ring_memory[];
    const std::uint32_t ring_rows = shared_address(ring_memory), ring_weights = ring_rows + S::stages * S::row_bytes;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const int row_warp = warp / S::weight_warps, weight_warp = warp % S::weight_warps;
    const int tiles = tile_count_of<P::with_shared>(p, S::rows), items = tiles * pieces,
              stride = static_cast<int>(gridDim.x);

    // The cursor of the copies: what stays within an item is computed when it moves there.
    int load_item = static_cast<int>(blockIdx.x), load_k = 0, load_stage = 0;
    [[maybe_unused]] int load_strips = 0;  // of this piece; of the block of packed strips where the tile is narrow
    row_cursor<P, S> rows(thread, ring_rows);
    const T* from_weights = p.weights;
    const T* hub[std::size_t{S::blocks}][std::size_t{hub_lanes}];
    [[maybe_unused]] const int hub_offset = lane / 8 % 2 * 8;
    const std::uint32_t to_weights_lane = ring_weights + static_cast<std::uint32_t>(thread * 16);

    const auto load = [&] {
        if (load_item < items) {
            if (load_k == 0) {
                const item_place at = item_at<P, S::together>(p, load_item, tiles, pieces, S::rows);
                const T* expert = weights_of<P::with_shared>(p, at.rows.expert, P::expert_elements);
                const int strip = at.piece * S::strips;
                load_strips = X::strips - strip < S::strips ? X::strips - strip : S::strips;
                if constexpr (P::packed && S::narrow) {
                    const int mine = strip + warp, first = strip / block_strips * block_strips;
                    load_strips = mine < X::strips ? live_strips(first, X::strips) : 0;
                    from_weights =
                        expert + static_cast<index_t>(first) * 16 * X::padded + (mine - first) * 256 + lane * 8;
                } else if constexpr (P::packed) {
                    from_weights = expert + static_cast<index_t>(strip) * 16 * X::padded + thread * 8;
                } else {
                    GATEFOLD_UNROLL
                    for (int b = 0; b < S::blocks; ++b) {
                        GATEFOLD_UNROLL
                        for (int i = 0; i < hub_lanes; ++i)
                            hub[b][i] = hub_lane<P>(expert, strip + b * block_strips + warp + i * warps, lane).row;
                    }
                }
                rows.move_to(p, at.rows);
            }
            const std::uint32_t to_weights = to_weights_lane + static_cast<std::uint32_t>(load_stage * S::weight_bytes);
            [[maybe_unused]] const bool last = load_k == k_blocks - 1;
            rows.copy(p, load_stage, load_k, ragged_k && last ? k_last : BK / 16);
            GATEFOLD_UNROLL
            for (int b = 0; b < S::blocks; ++b) {
                const std::uint32_t to = to_weights + static_cast<std::uint32_t>(b * block_bytes);
                if constexpr (P::packed && S::narrow) {
                    GATEFOLD_UNROLL
                    for (int i = 0; i < block_copies; ++i)
                        if ((!ragged_strips || load_strips > 0) && (!(ragged_k && last) || i < k_last))
                            copy_streamed(to + static_cast<std::uint32_t>(i * S::threads * 16),
                                          from_weights + i * load_strips * 256);
                    from_weights += BK / 16 * load_strips * 256;
                } else if constexpr (P::packed) {
                    // The k of a block are one contiguous piece; a short last block makes it shorter, not sparser.
                    const int there = load_strips - b * block_strips;
                    const int live = !ragged_strips || there > block_strips ? block_strips : there > 0 ? there : 0;
                    const int chunks = live * 32 * (ragged_k && last ? k_last : BK / 16);
                    const T* from = from_weights + static_cast<index_t>(b) * block_strips * 16 * X::padded +
                                    static_cast<index_t>(load_k) * live * (BK * 16);
                    GATEFOLD_UNROLL
                    for (int i = 0; i < block_copies; ++i)
                        if ((!ragged_strips && !(ragged_k && last)) || thread + i * S::threads < chunks)
                            copy_streamed(to + static_cast<std::uint32_t>(i * S::threads * 16),
                                          from + i * S::threads * 8);
                } else {
                    GATEFOLD_UNROLL
                    for (int i = 0; i < block_copies; ++i) {
                        const int k16 = (i * warps + warp) / neighbours;
                        if (ragged_k && last && k16 >= k_last) break;
                        const T* row = hub[b][i % hub_lanes];
                        const int k = load_k * BK + k16 * 16, valid = row ? P::depth - k - hub_offset : 0;
                        const std::uint32_t place = to + static_cast<std::uint32_t>(i * S::threads * 16);
                        if constexpr (P::weights_aligned)
                            copy_streamed_or_zero(place, valid > 0 ? row + k : p.weights, valid <= 0);
                        else
                            copy_elements(place, row + k, valid);
                    }
                }
            }
            if (++load_k == k_blocks) {
                load_k = 0;
                load_item += stride;
            }
            load_stage = load_stage + 1 == S::stages ? 0 : load_stage + 1;
        }
        copy_commit();
    };
    GATEFOLD_PRAGMA(unroll 1)
    for (int s = 0; s < S::stages - 1; ++s) load();
    if constexpr (P::sums && P::up) clear_sums<P::depth>(p.to);

    // Rows: two groups of 8 per ldmatrix. The swizzle of step kk is an exclusive or with kk · 32 bytes.
    const int lane_row = row_warp * (S::rows / S::row_warps) + (lane & 7) + (lane >> 4) * 8;
    const std::uint32_t row_lane =
        ring_rows + static_cast<std::uint32_t>(lane_row * (BK * 2) + ((lane >> 3 & 1) ^ (lane_row & 7)) * 16);
    const int warp_strip = weight_warp * S::warp_strips;
    const std::uint32_t weight_lane =
        ring_weights +
        static_cast<std::uint32_t>(warp_strip / block_strips * block_bytes + warp_strip % block_strips * 512 +
                                   ((lane & 7) | (lane & 8) << 1 | (lane & 16) >> 1) * 16);

    int stage = 0;
    for (int item = static_cast<int>(blockIdx.x); item < items; item += stride) {
        const item_place at = item_at<P, S::together>(p, item, tiles, pieces, S::rows);
        const int my_first = row_warp * (S::rows / S::row_warps), my_rows = at.rows.rows - my_first;
        const int my_strip = at.piece * S::strips + warp_strip;
        [[maybe_unused]] const int my_strips = X::strips - my_strip;
        const int my_groups = !ragged_strips || my_strips > 0 ? (my_rows + 7) / 8 : 0;
        const auto step_bytes =
            static_cast<std::uint32_t>((P::packed && !S::narrow && ragged_strips && my_strips > 0
                                            ? live_strips(my_strip / block_strips * block_strips, X::strips)
                                            : neighbours) *
                                       512);

        float sums[std::size_t{S::warp_strips}][std::size_t{S::warp_groups}][4] = {};
        const auto multiply = [&]<int Groups, int Steps>(constant_of<Groups>, constant_of<Steps>) {
            GATEFOLD_UNROLL
            for (int kk = 0; kk < Steps; ++kk) {
                std::uint32_t x[std::size_t{(Groups + 1) / 2}][4];
                GATEFOLD_UNROLL
                for (int j = 0; j < (Groups + 1) / 2; ++j)
                    ldmatrix(x[j], (row_lane ^ static_cast<std::uint32_t>(kk * 32)) +
                                       static_cast<std::uint32_t>(stage * S::row_bytes + j * 16 * (BK * 2)));
                GATEFOLD_UNROLL
                for (int m = 0; m < S::warp_strips; ++m) {
                    if (ragged_strips && m >= my_strips) break;
                    std::uint32_t w[4];
                    ldmatrix(w, weight_lane + static_cast<std::uint32_t>(stage * S::weight_bytes + m * 512) +
                                    static_cast<std::uint32_t>(kk) * step_bytes);
                    GATEFOLD_UNROLL
                    for (int j = 0; j < Groups; ++j)
                        multiply_add<T>(sums[m][j], w, x[j / 2][j % 2 * 2], x[j / 2][j % 2 * 2 + 1]);
                }
            }
        };
        // Which rungs of the ladder there are decides how much is multiplied for nothing; that there is one loop around
        // them, how much code there is.
        const auto by_groups = [&]<int Steps>(constant_of<Steps> steps) {
            if constexpr (S::warp_groups == 2) {
                if (my_groups > 1)
                    multiply(constant_of<2>{}, steps);
                else if (my_groups == 1)
                    multiply(constant_of<1>{}, steps);
            } else if (my_groups > 6)
                multiply(constant_of<8>{}, steps);
            else if (my_groups == 6)
                multiply(constant_of<6>{}, steps);
            else if (my_groups == 5)
                multiply(constant_of<5>{}, steps);
            else if (my_groups == 4)
                multiply(constant_of<4>{}, steps);
            else if (my_groups == 3)
                multiply(constant_of<3>{}, steps);
            else if (my_groups == 2)
                multiply(constant_of<2>{}, steps);
            else if (my_groups == 1)
                multiply(constant_of<1>{}, steps);
        };
        // Every warp takes part in the barriers, whatever its share.
        for (int kb = 0; kb < k_blocks; ++kb) {
            copy_wait<S::stages - 2>();
            __syncthreads();
            load();
            if (!ragged_k || kb < k_blocks - 1)
                by_groups(constant_of<BK / 16>{});
            else
                by_groups(constant_of<k_last>{});
            stage = stage + 1 == S::stages ? 0 : stage + 1;
        }

        constexpr int groups = P::gated ? S::warp_strips : 2 * S::warp_strips;
        const auto store = [&](int j, const auto& sums_of) {
            std::uint32_t words[std::size_t{groups}];
            GATEFOLD_UNROLL
            for (int m = 0; m < S::warp_strips; ++m) {
                const finished_sums<P> done = finish<P>(p, sums_of(m), at.rows.expert, my_strip + m, lane,
                                                        index_t{at.rows.row} + my_first + j * 8, my_rows - j * 8);
                words[P::gated ? m : 2 * m] = transpose_matrix(round_two<T>(done.low[0], done.low[1]));
                if constexpr (!P::gated) words[2 * m + 1] = transpose_matrix(round_two<T>(done.high[0], done.high[1]));
            }
            const int r = j * 8 + lane / 4;
            if (r < my_rows)
                store_row<P, groups>(p.out + (index_t{at.rows.row} + my_first + r) * p.out_stride,
                                     my_strip * (P::gated ? 1 : 2), words, lane);
        };
        const auto deliver = [&](int j, const auto& sums_of) {
            if constexpr (P::sums && !P::up)
                add_strips<P, S::warp_strips, warps>(p, sums_of, at.rows.expert, my_strip, my_strips, warp, lane,
                                                     index_t{at.rows.row} + my_first + j * 8, my_rows - j * 8);
            else
                store(j, sums_of);
        };
        if constexpr (P::up || !ragged_k) {
            // One round of code for all groups of rows: the sums move up instead, since registers have no index.
            // Written out, the activations are three quarters of the kernel. (A ragged down projection would run out of
            // registers.)
            GATEFOLD_PRAGMA(unroll 1)
            for (int j = 0; j < S::warp_groups && j < my_groups; ++j) {
                deliver(j, [&](int m) -> const float(&)[4] { return sums[m][0]; });
                GATEFOLD_UNROLL
                for (int m = 0; m < S::warp_strips; ++m) {
                    GATEFOLD_UNROLL
                    for (int next = 1; next < S::warp_groups; ++next) {
                        GATEFOLD_UNROLL
                        for (int i = 0; i < 4; ++i) sums[m][next - 1][i] = sums[m][next][i];
                    }
                }
            }
        } else {
            GATEFOLD_UNROLL
            for (int j = 0; j < S::warp_groups; ++j) {
                if (j >= my_groups) break;
                deliver(j, [&](int m) -> const float(&)[4] { return sums[m][j]; });
            }
        }
        if constexpr (P::sums && !P::up) {
            const int rows = my_rows < S::warp_groups * 8 ? my_rows : S::warp_groups * 8;
            const int strips = ragged_strips && my_strips < S::warp_strips ? my_strips : S::warp_strips;
            if (my_groups > 0 && rows > 0)
                arrive<P::outputs>(p.to, index_t{at.rows.row} + my_first, rows, my_strip, strips, lane);
        }
    }
    copy_wait<0>();
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
