// The grouped product for few rows per expert: memory is what it waits for, so nothing else is synchronised.
//
//     item = (tile of 8 rows, strip of 16 weight rows): one warp, all of k, its own ring of asynchronous copies
//
// The ring never drains: the copies of a warp's next item begin while the current one is multiplied, across strips and
// experts. Neighbouring items go to different multiprocessors, so that a short last wave spreads. Blocks have as many
// warps as there are items for them (few_rows_warps), and the ring of a block is theirs: what is on its way does not
// depend on the number of strips, and no sum has to be cut to keep memory busy.
#pragma once

#include <gatefold/cuda/experts/wave_model.hpp>
#include <gatefold/cuda/gemm/mma.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

// One block is what shared memory leaves room for on some devices; without the number ptxas stops at 64 registers and
// spills where rows are ragged.
template <class P>
__global__ void __launch_bounds__(32 * few_rows_shape::most_warps, 1) multiply_few(const typename P::arguments p) {
    using T = typename P::value_type;
    using S = few_rows_shape;
    using X = typename P::shape;
    constexpr int BK = S::depth, k_blocks = (X::padded + BK - 1) / BK, k_last = (X::padded - (k_blocks - 1) * BK) / 16;
    constexpr int weight_copies = S::weight_bytes / 512, row_chunks = BK / 8, rows_at_once = 32 / row_chunks;
    constexpr int row_copies = S::rows / rows_at_once;
    constexpr bool ragged_k = k_last * 16 != BK;

    extern __shared__ __align__(128) unsigned char ring_memory[];
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int warps = static_cast<int>(blockDim.x) / 32, together = S::most_warps / warps,
              places = together * S::stages;
    const std::uint32_t ring = shared_address(ring_memory) + static_cast<unsigned>(warp * places * S::place_bytes);
    const int tiles = tile_count_of<P::with_shared>(p, S::rows), items = tiles * X::strips;
    const int stride = static_cast<int>(gridDim.x) * warps;
    const int first_item = warp * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x);

    // The cursor of the copies.
    int load_item = first_item, load_k = 0, load_place = 0;
    [[maybe_unused]] int step = 0;
    const T* from_weights = p.weights;
    hub_lane<P> from_hub(p.weights, X::strips, lane);
    const T* from_rows[std::size_t{row_copies}];
    int readable[std::size_t{row_copies}];
    const int my_row = lane / row_chunks, my_chunk = lane % row_chunks;
    // Row r keeps chunk c at c ^ (r & 7).
    const auto row_place = [&](int r) {
        return static_cast<std::uint32_t>(S::weight_bytes + r * (BK * 2) + (my_chunk ^ (r & 7)) * 16);
    };
    const auto load = [&] {
        if (load_item < items) {
            if (load_k == 0) {
                const item_place at = item_at<P, 0>(p, load_item, tiles, X::strips, S::rows);
                const T* expert = weights_of<P::with_shared>(p, at.rows.expert, P::expert_elements);
                const T* in = input_of<P::with_shared>(p, at.rows.expert);
                const index_t in_stride = stride_of<P::with_shared>(p, at.rows.expert);
                if constexpr (P::packed) {
                    const int first = at.piece / block_strips * block_strips;
                    step = live_strips(first, X::strips) * 256;
                    from_weights =
                        expert + static_cast<index_t>(first) * 16 * X::padded + (at.piece - first) * 256 + lane * 8;
                } else {
                    from_hub = hub_lane<P>(expert, at.piece, lane);
                }
                GATEFOLD_UNROLL
                for (int i = 0; i < row_copies; ++i) {
                    const int r = my_row + i * rows_at_once;
                    index_t source = 0;
                    if (r < at.rows.rows) source = source_of<P::with_shared>(p, at.rows.expert, at.rows.row + r);
                    from_rows[i] = in + source * in_stride + my_chunk * 8;
                    readable[i] = r < at.rows.rows ? P::readable - my_chunk * 8 : 0;
                }
            }
            const std::uint32_t to = ring + static_cast<std::uint32_t>(load_place * S::place_bytes);
            [[maybe_unused]] const bool last = load_k == k_blocks - 1;
            GATEFOLD_UNROLL
            for (int i = 0; i < weight_copies; ++i) {
                if (ragged_k && last && i >= k_last) break;
                const std::uint32_t there = to + static_cast<std::uint32_t>(i * 512 + lane * 16);
                if constexpr (P::packed)
                    copy_streamed(there, from_weights + i * step);
                else
                    from_hub.copy(there, load_k * BK + i * 16, p.weights);
            }
            GATEFOLD_UNROLL
            for (int i = 0; i < row_copies; ++i) {
                const int valid = P::readable % BK == 0 ? readable[i] : readable[i] - load_k * BK;
                copy_row_chunk<P, BK>(to + row_place(my_row + i * rows_at_once), from_rows[i], p.in,
                                      valid < 8 ? valid : 8);
                from_rows[i] += BK;
            }
            from_weights += BK / 16 * step;
            if (++load_k == k_blocks) {
                load_k = 0;
                load_item += stride;
            }
            load_place = load_place + 1 == places ? 0 : load_place + 1;
        }
    };
    const auto load_stage = [&] {
        GATEFOLD_PRAGMA(unroll 1)
        for (int i = 0; i < together; ++i) load();
        copy_commit();
    };
    GATEFOLD_PRAGMA(unroll 1)
    for (int s = 0; s < S::stages - 1; ++s) load_stage();
    if constexpr (P::sums && P::up) clear_sums<P::depth>(p.to);

    // Lane bits 3 and 4 trade places: the matrices arrive in the order of operand A.
    const auto weight_lane = static_cast<std::uint32_t>(((lane & 7) | (lane & 8) << 1 | (lane & 16) >> 1) * 16);
    int place = 0, ready = 0;
    for (int item = first_item; item < items; item += stride) {
        float sums[4] = {};
        const auto multiply = [&]<int Steps>(constant_of<Steps>) {
            const std::uint32_t at = ring + static_cast<std::uint32_t>(place * S::place_bytes);
            GATEFOLD_UNROLL
            for (int kk = 0; kk < Steps; kk += 2) {
                std::uint32_t x[4];  // (b0, b1) of step kk, then of step kk + 1
                ldmatrix(x, at + static_cast<std::uint32_t>(S::weight_bytes + lane % 8 * (BK * 2) +
                                                            ((kk * 2 + lane / 8) ^ (lane & 7)) * 16));
                GATEFOLD_UNROLL
                for (int half = 0; half < 2; ++half) {
                    if (kk + half >= Steps) break;
                    std::uint32_t w[4];
                    ldmatrix(w, at + weight_lane + static_cast<std::uint32_t>((kk + half) * 512));
                    multiply_add<T>(sums, w, x[2 * half], x[2 * half + 1]);
                }
            }
        };
        for (int kb = 0; kb < k_blocks; ++kb) {
            if (ready == 0) {
                copy_wait<S::stages - 2>();
                __syncwarp();  // the copies of all lanes are there, and the stage to be filled next has been read
                load_stage();
                ready = together;
            }
            --ready;
            if (!ragged_k || kb < k_blocks - 1)
                multiply(constant_of<BK / 16>{});
            else
                multiply(constant_of<k_last>{});
            place = place + 1 == places ? 0 : place + 1;
        }

        const item_place at = item_at<P, 0>(p, item, tiles, X::strips, S::rows);
        const finished_sums<P> done = finish<P>(p, sums, at.rows.expert, at.piece, lane, at.rows.row, at.rows.rows);
        if constexpr (P::sums && !P::up) {
            add_strip<P>(p, done, at.piece, lane, at.rows.row, at.rows.rows);
            arrive<P::outputs>(p.to, at.rows.row, at.rows.rows, at.piece, 1, lane);
        } else {
            // A lane holds one output of two rows; transposed, it holds two outputs of row lane / 4.
            constexpr int groups = P::gated ? 1 : 2;
            std::uint32_t words[std::size_t{groups}];
            words[0] = transpose_matrix(round_two<T>(done.low[0], done.low[1]));
            if constexpr (groups == 2) words[groups - 1] = transpose_matrix(round_two<T>(done.high[0], done.high[1]));
            if (lane / 4 < at.rows.rows)
                store_row<P, groups>(p.out + (at.rows.row + lane / 4) * p.out_stride, at.piece * groups, words, lane);
        }
    }
    copy_wait<0>();
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
