// The grouped product for many rows per expert on Hopper: a block multiplies a tile of 128 rows with 256 weight rows,
// a warpgroup for every 64 rows.
//
//     ring of stages [rows x 64][256 weight rows x 64] ── barrier per stage ──> wgmma 64 x 256 x 16, sums in registers
//
// The same tiles as multiply_tiles and, where products_agree() says so, the same bits; one read of shared memory serves
// four warps. Weights arrive in shared memory as they are packed: what ldmatrix reads there, wgmma reads too.
#pragma once

#include <gatefold/cuda/device/context.cuh>
#include <gatefold/cuda/device/ptx_warpgroup.cuh>
#include <gatefold/cuda/gemm/mma.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

struct warpgroup_shape {
    static constexpr int rows = 128, strips = 16, depth = 64, stages = 4, threads = 256;
    static constexpr int together = 16;  ///< tiles before the next piece
    static constexpr int row_bytes = rows * depth * 2, step_bytes = strips * 512,
                         weight_bytes = depth / 16 * step_bytes;
    static constexpr int stage_bytes = row_bytes + weight_bytes;
    static constexpr int alignment = 1024, shared_bytes = stages * stage_bytes + alignment;
    /// Stages on their way: one is being multiplied, another may still be.
    static constexpr int ahead = stages - 2;
};

/// Sums of 64 rows and 16 strips, with bias and activation, to the rows where they belong.
template <class P>
__device__ __forceinline__ void store_products(const grouped_product<typename P::value_type>& p,
                                               const float (&sums)[128], const tile& at, int first_row,
                                               int first_strip) {
    using T = typename P::value_type;
    using X = typename P::shape;
    constexpr int groups = P::gated ? 16 : 32, together = 4;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    [[maybe_unused]] const T* bias = nullptr;
    if constexpr (P::bias) bias = bias_of<P::with_shared>(p, at.expert, P::weight_rows);
    [[maybe_unused]] const float limit = limit_of<P::with_shared>(p, at.expert);
    GATEFOLD_UNROLL
    for (int half = 0; half < 2; ++half) {
        const int r = first_row + half * 8 + lane / 4;
        if (r >= at.rows) continue;
        const index_t row = index_t{at.row} + r;
        [[maybe_unused]] T* pre = nullptr;
        if constexpr (P::up) pre = p.pre ? pre_of<P::with_shared>(p, at.expert, row, P::weight_rows) : nullptr;
        GATEFOLD_UNROLL
        for (int g = 0; g < groups; g += together) {
            const int first_group = first_strip * (P::gated ? 1 : 2) + g;
            if (first_group >= X::groups) break;
            std::uint32_t words[std::size_t{together}];
            GATEFOLD_UNROLL
            for (int t = 0; t < together; ++t) {
                float v[2];
                GATEFOLD_UNROLL
                for (int i = 0; i < 2; ++i) {
                    const int n = output_at(first_group + t, lane % 4 * 2 + i, X::groups);
                    const bool there = n < P::outputs && first_group + t < X::groups;
                    v[i] = sums[(P::gated ? 2 : 1) * (g + t) * 4 + half * 2 + i];
                    if constexpr (P::bias) v[i] += there ? to_accumulate(bias[n]) : 0.0f;
                    if constexpr (P::up) {
                        if (pre && there) pre[n] = from_accumulate<T>(v[i]);
                    }
                    if constexpr (P::gated) {
                        float upper = sums[(2 * (g + t) + 1) * 4 + half * 2 + i];
                        if constexpr (P::bias) upper += there ? to_accumulate(bias[P::outputs + n]) : 0.0f;
                        if (pre && there) pre[P::outputs + n] = from_accumulate<T>(upper);
                        v[i] = gatefold::activate<P::act>(v[i], upper, limit);
                    } else if constexpr (P::up) {
                        v[i] = gatefold::activate<P::act>(v[i], limit);
                    }
                }
                words[t] = round_two<T>(v[0], v[1]);
            }
            store_row<P, together>(p.out + row * p.out_stride, first_group, words, lane);
        }
    }
}

template <class P>
__global__ void __launch_bounds__(warpgroup_shape::threads, 1)
    multiply_by_warpgroups(const grouped_product<typename P::value_type> p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    using T = typename P::value_type;
    using S = warpgroup_shape;
    using X = typename P::shape;
    constexpr int BK = S::depth, k_blocks = (X::padded + BK - 1) / BK, k_last = (X::padded - (k_blocks - 1) * BK) / 16;
    constexpr int pieces = (X::strips + S::strips - 1) / S::strips, warps = S::threads / 32;
    constexpr int warp_strips = S::strips / warps;
    constexpr bool ragged_k = k_last * 16 != BK;

    extern __shared__ __align__(128) unsigned char ring_memory[];
    const std::uint32_t ring = (shared_address(ring_memory) + (S::alignment - 1)) & ~std::uint32_t{S::alignment - 1};
    const std::uint32_t ring_weights = ring + S::stages * S::row_bytes;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32, group = warp / 4;
    const int tiles = tile_count_of<P::with_shared>(p, S::rows), items = tiles * pieces,
              stride = static_cast<int>(gridDim.x);

    // The cursor of the copies: what stays within an item is computed when it moves there.
    int load_item = static_cast<int>(blockIdx.x), load_k = 0, load_stage = 0;
    row_cursor<P, S> rows(thread, ring);
    const T* from_strips[std::size_t{warp_strips}];  ///< null: no such strip
    [[maybe_unused]] int strip_step[std::size_t{warp_strips}];
    [[maybe_unused]] const int hub_offset = lane / 8 % 2 * 8;
    const std::uint32_t to_strips_lane = ring_weights + static_cast<std::uint32_t>(warp * 512 + lane * 16);
    const auto load = [&] {
        if (load_item < items) {
            if (load_k == 0) {
                const item_place at = item_at<P, S::together>(p, load_item, tiles, pieces, S::rows);
                const T* expert = weights_of<P::with_shared>(p, at.rows.expert, P::expert_elements);
                GATEFOLD_UNROLL
                for (int i = 0; i < warp_strips; ++i) {
                    const int strip = at.piece * S::strips + warp + i * warps;
                    if constexpr (P::packed) {
                        const int first = strip / block_strips * block_strips, live = live_strips(first, X::strips);
                        strip_step[i] = live * 256;
                        from_strips[i] = strip < X::strips ? expert + static_cast<index_t>(first) * 16 * X::padded +
                                                                 (strip - first) * 256 + lane * 8
                                                           : nullptr;
                    } else {
                        from_strips[i] = hub_lane<P>(expert, strip, lane).row;
                    }
                }
                rows.move_to(p, at.rows);
            }
            const std::uint32_t to_strips = to_strips_lane + static_cast<std::uint32_t>(load_stage * S::weight_bytes);
            [[maybe_unused]] const bool last = load_k == k_blocks - 1;
            rows.copy(p, load_stage, load_k, ragged_k && last ? k_last : BK / 16);
            GATEFOLD_UNROLL
            for (int k16 = 0; k16 < BK / 16; ++k16) {
                if (ragged_k && last && k16 >= k_last) break;
                GATEFOLD_UNROLL
                for (int i = 0; i < warp_strips; ++i) {
                    const std::uint32_t place =
                        to_strips + static_cast<std::uint32_t>(k16 * S::step_bytes + i * warps * 512);
                    if constexpr (P::packed) {
                        copy_streamed_or_zero(place, from_strips[i] ? from_strips[i] : p.weights, !from_strips[i]);
                        if (from_strips[i]) from_strips[i] += strip_step[i];
                    } else {
                        const int k = load_k * BK + k16 * 16;
                        const int valid = from_strips[i] ? P::depth - k - hub_offset : 0;
                        if constexpr (P::weights_aligned)
                            copy_streamed_or_zero(place, valid > 0 ? from_strips[i] + k : p.weights, valid <= 0);
                        else
                            copy_elements(place, from_strips[i] + k, valid);
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
    for (int s = 0; s < S::ahead; ++s) load();

    const std::uint32_t my_rows_at = ring + static_cast<std::uint32_t>(group * 64 * (BK * 2));
    int stage = 0;
    for (int item = static_cast<int>(blockIdx.x); item < items; item += stride) {
        const item_place at = item_at<P, S::together>(p, item, tiles, pieces, S::rows);
        const bool works = __shfl_sync(all_lanes, at.rows.rows > group * 64 ? 1 : 0, 0) != 0;
        float sums[128];
        GATEFOLD_UNROLL
        for (int i = 0; i < 128; ++i) sums[i] = 0;
        for (int kb = 0; kb < k_blocks; ++kb) {
            copy_wait<S::ahead - 1>();
            publish_to_products();
            __syncthreads();  // this stage is there, and the stage to be filled next has been multiplied
            load();
            if (works) {
                products_begin();
                const std::uint64_t a = swizzled_rows(my_rows_at + static_cast<std::uint32_t>(stage * S::row_bytes));
                const std::uint64_t b =
                    packed_weights(ring_weights + static_cast<std::uint32_t>(stage * S::weight_bytes));
                GATEFOLD_UNROLL
                for (int k16 = 0; k16 < BK / 16; ++k16) {
                    if (ragged_k && k16 >= k_last && kb == k_blocks - 1) break;
                    multiply_wide<T>(sums, a + static_cast<unsigned>(k16 * 32 >> 4),
                                     b + static_cast<unsigned>(k16 * S::step_bytes >> 4));
                }
                products_commit();
                products_wait<1>();
            }
            stage = stage + 1 == S::stages ? 0 : stage + 1;
        }
        if (works) {
            products_wait<0>();
            store_products<P>(p, sums, at.rows, group * 64 + warp % 4 * 16, at.piece * S::strips);
        }
    }
    copy_wait<0>();
#endif
}

// ---- may it take the place of multiply_tiles?

/// Counts sums of wgmma that differ from those of mma.sync, weights in the roles the kernels give them.
template <class T>
__global__ void __launch_bounds__(128) compare_products(unsigned* different) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    __shared__ __align__(1024) unsigned char rows[64 * 128];
    __shared__ __align__(128) unsigned char weights[4 * warpgroup_shape::step_bytes];
    __shared__ float strip_sums[64][17];
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    // Numbers of either sign whose sizes differ by up to 2^7: what is cut off while they are added shows.
    const auto number = [](unsigned i) {
        std::uint32_t x = i * 0x9e3779b1u;
        x = (x ^ x >> 16) * 0x7feb352du;
        x ^= x >> 15;
        const float size = static_cast<float>(1u << (x & 7)) * 0x1p-7f;
        return from_accumulate<T>(
            gatefold::mul(static_cast<float>(static_cast<std::int32_t>(x) >> 8), size * 0x1p-23f));
    };
    for (int i = thread; i < 64 * 64; i += 128) reinterpret_cast<T*>(rows)[i] = number(static_cast<unsigned>(i));
    for (int i = thread; i < 4 * warpgroup_shape::step_bytes / 2; i += 128)
        reinterpret_cast<T*>(weights)[i] = number(static_cast<unsigned>(i) + 65536u);
    publish_to_products();
    __syncthreads();
    constexpr int rounds = 4;
    const std::uint32_t rows_at = shared_address(rows), weights_at = shared_address(weights);
    float sums[128];
    GATEFOLD_UNROLL
    for (int i = 0; i < 128; ++i) sums[i] = 0;
    products_begin();
    for (int step = 0; step < rounds * 4; ++step)
        multiply_wide<T>(
            sums, swizzled_rows(rows_at) + static_cast<unsigned>(step % 4 * 32 >> 4),
            packed_weights(weights_at) + static_cast<unsigned>(step % 4 * warpgroup_shape::step_bytes >> 4));
    products_commit();
    products_wait<0>();
    unsigned mine = 0;
    GATEFOLD_UNROLL
    for (int strip = 0; strip < warpgroup_shape::strips; ++strip) {
        __syncthreads();
        GATEFOLD_UNROLL
        for (int i = 0; i < 8; ++i)
            strip_sums[warp * 16 + lane / 4 + i % 4 / 2 * 8][i / 4 * 8 + lane % 4 * 2 + i % 2] = sums[strip * 8 + i];
        __syncthreads();
        for (int group = warp * 2; group < warp * 2 + 2; ++group) {
            float narrow[4] = {};
            for (int step = 0; step < rounds * 4; ++step) {
                std::uint32_t w[4], x[4];
                const int chunk = step % 4 * 2 + lane / 8 % 2, r = group * 8 + lane % 8;
                ldmatrix(x, rows_at + static_cast<std::uint32_t>(r * 128 + (chunk ^ (r & 7)) * 16));
                ldmatrix(
                    w, weights_at + static_cast<std::uint32_t>(step % 4 * warpgroup_shape::step_bytes + strip * 512 +
                                                               ((lane & 7) | (lane & 8) << 1 | (lane & 16) >> 1) * 16));
                multiply_add<T>(narrow, w, x[0], x[1]);
            }
            GATEFOLD_UNROLL
            for (int i = 0; i < 4; ++i)
                mine += narrow[i] == strip_sums[group * 8 + lane % 4 * 2 + i % 2][lane / 4 + i / 2 * 8] ? 0u : 1u;
        }
    }
    if (mine) atomicAdd(different, mine);
#else
    if (threadIdx.x == 0) *different = 1;
#endif
}

/// What products_agree found, by device: 0 nothing yet, 1 they do, 2 they do not.
template <class T>
signed char* products_known() {
    static signed char known[64] = {};
    return known;
}
/// Whether this device has wgmma and gives it the bits of mma.sync, found out once by trying: a batch then has the same
/// bits whichever kernel its size calls for. While a graph is captured nothing can be tried, and the answer is no.
template <class T>
bool products_agree(context<cuda>& ctx) {
    if (ctx.device() >= 64 || ctx.shared_bytes() < warpgroup_shape::shared_bytes) return false;
    signed char* place = products_known<T>() + ctx.device();
    signed char known = __atomic_load_n(place, __ATOMIC_RELAXED);  // contexts of several threads may ask at once
    if (known == 0) {
        cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
        check(cudaStreamIsCapturing(ctx.stream(), &capture), "forward");
        if (capture != cudaStreamCaptureStatusNone) return false;
        unsigned long long different = 0;
        auto* on_device = &ctx.control()->unused[0];
        compare_products<T><<<1, 128, 0, ctx.stream()>>>(reinterpret_cast<unsigned*>(on_device));
        check(cudaGetLastError(), "forward");
        check(cudaMemcpyAsync(&different, on_device, sizeof different, cudaMemcpyDeviceToHost, ctx.stream()),
              "forward");
        check(cudaMemsetAsync(on_device, 0, sizeof different, ctx.stream()), "forward");
        ctx.synchronize();
        known = different == 0 ? 1 : 2;
        __atomic_store_n(place, known, __ATOMIC_RELAXED);
    }
    return known == 1;
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
