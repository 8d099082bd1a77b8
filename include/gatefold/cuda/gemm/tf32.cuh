// Grouped products of float layers on the tensor cores: operands rounded to tf32, 10 bits of mantissa, sums in float.
// Only what asks for them compiles these kernels (tf32.cuh); the products of a float layer are exact otherwise.
//
//     rows (gathered), weight rows ──> shared memory, rounded ──> mma.sync.m16n8k8 ──> bias, activation ──> rows
//
// Weights are the 16-wide operand. Of a gated projection a strip holds 8 gate rows and the 8 up rows of the same
// outputs, so that both sums of an output land in one thread. Sums go over ascending blocks of 8 k in one accumulator.
#pragma once

#include <gatefold/cuda/experts/experts.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// A block of 128 threads: simt_rows rows of tokens by 64 weight rows, 32 of k at a time. The pitch keeps the eight
/// rows that a warp reads at once in different banks.
struct tf32_tile {
    static constexpr int rows = simt_rows, weights = 64, depth = 32, pitch = depth + 4;
    std::uint32_t x[rows][pitch], w[weights][pitch];
};

__device__ __forceinline__ std::uint32_t rounded_to_tf32(float v) {
    std::uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(v));
    return bits;
}
__device__ __forceinline__ void multiply_tf32(float (&sums)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                              std::uint32_t b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// One projection of all experts, as simt_experts: the same tiles, the same grid.
template <int N, int K, bool Up, activation Act, bool Bias, bool Factor, bool WithShared>
__global__ void __launch_bounds__(128) tf32_experts(const grouped_product<float> p) {
    constexpr bool gated = Up && gated_activation<Act>;
    constexpr int weight_rows = gated ? 2 * N : N, features = gated ? tf32_tile::weights / 2 : tf32_tile::weights;
    constexpr int depth = tf32_tile::depth, together = 128 / depth, row_tiles = tf32_tile::rows / 8;
    __shared__ tf32_tile shared;
    const int number = static_cast<int>(blockIdx.x);
    if (p.tiles && number >= tile_count_of<WithShared>(p, tf32_tile::rows)) return;
    const tile mine = tile_at<WithShared>(p, number, tf32_tile::rows);
    const int first = static_cast<int>(blockIdx.y) * features, thread = static_cast<int>(threadIdx.x);
    const int lane = thread % 32, warp = thread / 32, k_mine = thread % depth, row_mine = thread / depth;
    const float* weights = weights_of<WithShared>(p, mine.expert, index_t{weight_rows} * K);

    const float* in = input_of<WithShared>(p, mine.expert);
    const index_t in_stride = stride_of<WithShared>(p, mine.expert);

    // Where the thread's rows begin; null: zeros.
    const float *x_rows[tf32_tile::rows / together], *w_rows[tf32_tile::weights / together];
    [[maybe_unused]] float factors[tf32_tile::rows / together];
    GATEFOLD_UNROLL
    for (int i = 0; i < tf32_tile::rows / together; ++i) {
        const int m = row_mine + i * together;
        x_rows[i] = m < mine.rows ? in + source_of<WithShared>(p, mine.expert, mine.row + m) * in_stride : nullptr;
        if constexpr (Factor) factors[i] = factor_of<WithShared>(p, mine, m);
    }
    GATEFOLD_UNROLL
    for (int j = 0; j < tf32_tile::weights / together; ++j) {
        const int n = row_mine + j * together;
        const int f = first + (gated ? n / 16 * 8 + n % 8 : n), row = f + (gated && n % 16 >= 8 ? N : 0);
        w_rows[j] = f < N ? weights + static_cast<index_t>(row) * K : nullptr;
    }

    float sums[row_tiles][4] = {};
    for (int k0 = 0; k0 < K; k0 += depth) {
        const int k = k0 + k_mine;
        __syncthreads();
        GATEFOLD_UNROLL
        for (int i = 0; i < tf32_tile::rows / together; ++i) {
            float v = x_rows[i] && k < K ? x_rows[i][k] : 0.0f;
            if constexpr (Factor) v = gatefold::mul(v, factors[i]);
            shared.x[row_mine + i * together][k_mine] = rounded_to_tf32(v);
        }
        GATEFOLD_UNROLL
        for (int j = 0; j < tf32_tile::weights / together; ++j)
            shared.w[row_mine + j * together][k_mine] = rounded_to_tf32(w_rows[j] && k < K ? w_rows[j][k] : 0.0f);
        __syncthreads();
        GATEFOLD_UNROLL
        for (int q = 0; q < depth; q += 8) {
            const int g = lane / 4, t = q + lane % 4;
            const std::uint32_t a[4] = {shared.w[warp * 16 + g][t], shared.w[warp * 16 + g + 8][t],
                                        shared.w[warp * 16 + g][t + 4], shared.w[warp * 16 + g + 8][t + 4]};
            GATEFOLD_UNROLL
            for (int m = 0; m < row_tiles; ++m)
                multiply_tf32(sums[m], a, shared.x[m * 8 + g][t], shared.x[m * 8 + g][t + 4]);
        }
    }

    [[maybe_unused]] const float* bias = nullptr;
    if constexpr (Bias) bias = bias_of<WithShared>(p, mine.expert, weight_rows);
    [[maybe_unused]] const float limit = limit_of<WithShared>(p, mine.expert);
    GATEFOLD_UNROLL
    for (int m = 0; m < row_tiles; ++m) {
        GATEFOLD_UNROLL
        for (int i = 0; i < (gated ? 2 : 4); ++i) {
            const int row = m * 8 + lane % 4 * 2 + i % 2;
            const int f = first + (gated ? warp * 8 : warp * 16 + i / 2 * 8) + lane / 4;
            if (row >= mine.rows || f >= N) continue;
            const index_t r = mine.row + row;
            [[maybe_unused]] float* pre = nullptr;
            if constexpr (Up) pre = p.pre ? pre_of<WithShared>(p, mine.expert, r, weight_rows) : nullptr;
            float value = sums[m][i];
            if constexpr (Bias) value = value + bias[f];
            if constexpr (gated) {
                float upper = sums[m][i + 2];
                if constexpr (Bias) upper = upper + bias[N + f];
                if (pre) {
                    pre[f] = value;
                    pre[N + f] = upper;
                }
                value = gatefold::activate<Act>(value, upper, limit);
            } else if constexpr (Up) {
                if (pre) pre[f] = value;
                value = gatefold::activate<Act>(value, limit);
            }
            p.out[r * p.out_stride + f] = value;
        }
    }
}

/// The expert stage on these products.
struct tf32_stage {
    template <class Kind, bool Packed, bool Factor, bool WithShared>
    static void run(context<cuda>& ctx, const expert_matrices<float>& w, const grouped_product<float>& tokens,
                    index_t pairs, int experts, int tile_rows, const stage_output<float>& to,
                    const expert_matrices<float>& shared = {}) {
        constexpr int W = Kind::width, F = Kind::ffn, weights = tf32_tile::weights;
        const auto tiles = static_cast<unsigned>(row_tiles_of<WithShared>(tokens, pairs, experts, tile_rows));
        const auto p = first_product<F>(tokens, w, shared, to.activated);
        tf32_experts<F, W, true, Kind::act, Kind::bias, Factor, WithShared>
            <<<dim3(tiles, unsigned{ceil_div(F, Kind::gated ? weights / 2 : weights)}), 128, 0, ctx.stream()>>>(p);
        check_kernel("forward: first projection");
        tf32_experts<W, F, false, activation::identity, Kind::bias, false, WithShared>
            <<<dim3(tiles, unsigned{ceil_div(W, weights)}), 128, 0, ctx.stream()>>>(
                second_product(p, w, shared, to.out, to.out_stride));
        check_kernel("forward: second projection");
    }
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
