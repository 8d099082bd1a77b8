// Experts on a projection of the tokens, on CUDA: the way down before them, the way up after their combine.
//
//     x[T,H] ── latent_down ──> [T,D] ── experts, combine ──> sums[T,D] ── RMSNorm ──> n[T,D] ── latent_up ──> [T,H]
//
// Float and double have the CPU's chains and bits. In 16-bit layers both projections run on the tensor cores, which
// read n in the storage type.
#pragma once

#include <gatefold/cuda/combine.cuh>
#include <gatefold/cuda/experts/experts.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// n = v / rms(v) · norm, or v, in the storage type; zero up to a whole vector. A warp per row.
template <class T, int Width, bool Norm>
__global__ void __launch_bounds__(256)
    latent_rows(const accumulate_t<T>* __restrict__ v, const T* __restrict__ norm, T* __restrict__ to, int tokens) {
    using A = accumulate_t<T>;
    const index_t pitch = (Width + 15) / 16 * 16;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const index_t t = static_cast<index_t>(blockIdx.x) * 8 + threadIdx.x / 32;
    if (t >= tokens) return;
    const A* from = v + t * Width;
    A inverse = 1;
    if constexpr (Norm) {
        const A square = __shfl_sync(all_lanes, dot_by_warp<A>(from, from, Width), 0);
        inverse = gatefold::rsqrt(square / static_cast<A>(Width) + static_cast<A>(1e-5));
    }
    for (int d = lane; d < pitch; d += 32) {
        A n = d < Width ? from[d] : A(0);
        if constexpr (Norm)
            if (d < Width) n = gatefold::mul(gatefold::mul(n, inverse), to_accumulate(norm[d]));
        to[t * pitch + d] = from_accumulate<T>(n);
    }
}

/// x times k, as experts read it where the configuration says so.
template <class T, int Hidden>
__global__ void __launch_bounds__(256)
    multiply_rows(const T* __restrict__ x, index_t x_stride, T* __restrict__ to, accumulate_t<T> factor) {
    const index_t t = blockIdx.x, pitch = (Hidden + 15) / 16 * 16;
    for (int h = static_cast<int>(threadIdx.x); h < Hidden; h += 256)
        to[t * pitch + h] = from_accumulate<T>(gatefold::mul(to_accumulate(x[t * x_stride + h]), factor));
}

/// out = in · w^T for all rows: [rows, K] with w [N, K]. `Own`: rows of the input are the layer's, zero up to a whole
/// vector; `Edge`: rows of the output end where they end.
template <class T, int N, int K, bool Own, bool Edge>
void run_dense(context<cuda>& ctx, const T* in, index_t in_stride, const T* w, T* out, index_t out_stride, index_t rows,
               const char* name) {
    grouped_product<T> p;
    p.in = in;
    p.in_stride = in_stride;
    p.weights = w;
    p.out = out;
    p.out_stride = out_stride;
    p.rows = static_cast<int>(rows);
    constexpr auto none = activation::identity;
    const int tile_rows = tile_rows_for<T>(ctx, rows, 1);
    const index_t row_tiles = ceil_div(rows, index_t{tile_rows});
    if constexpr (sizeof(T) == 2) {
        // As a first projection where rows are the caller's: what lies behind them must not be read.
        run_projection(ctx, projection_of<T, N, K, !Own, none, false, false, (Own || K % 8 == 0), Edge, false>{}, p,
                       row_tiles, tile_rows, name);
    } else {
        simt_experts<T, N, K, true, none, false, false>
            <<<dim3(static_cast<unsigned>(row_tiles), unsigned{ceil_div(N, simt_columns)}), 128, 0, ctx.stream()>>>(p);
        check_kernel(name);
    }
}

/// From the routed sums [T, D] to rows of H elements.
template <class W, layer_type L = typename W::layer_type>
void latent_outputs(context<cuda>& ctx, const W& w, const typename L::accumulate_type* sums,
                    typename L::value_type* normal, index_t tokens, typename L::value_type* out, index_t out_stride,
                    bool is_y) {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    constexpr int H = L::hidden, D = L::width;
    const auto up = [&](const T* in, index_t stride) {
        if constexpr (H % 16 != 0)
            if (is_y)
                return run_dense<T, H, D, true, true>(ctx, in, stride, w.latent_up.data(), out, out_stride, tokens,
                                                      "forward: latent output");
        run_dense<T, H, D, true, false>(ctx, in, stride, w.latent_up.data(), out, out_stride, tokens,
                                        "forward: latent output");
    };
    if constexpr (std::is_same_v<T, A> && !L::c.latent_norm) {
        up(sums, D);
    } else {
        const T* norm = nullptr;
        if constexpr (L::c.latent_norm) norm = w.latent_norm.data();
        latent_rows<T, D, L::c.latent_norm>
            <<<static_cast<unsigned>(ceil_div(tokens, index_t{8})), 256, 0, ctx.stream()>>>(sums, norm, normal,
                                                                                            static_cast<int>(tokens));
        check_kernel("forward: latent norm");
        up(normal, row_pitch(D));
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
