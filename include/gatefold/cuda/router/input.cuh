// What the router projects where it is not the tokens as they lie: noise and norms on the way in, the first layer of
// deep projections.
//
//     x ── move_rows: noise, norm ──> u[T,H] ── project_rows ──> features[T,P] ── normalise_rows (cosine) ──> logits
//
// The orders of all sums are the CPU's: chains of fma for products, 16 partial sums for lengths.
#pragma once

#include <gatefold/cuda/combine.cuh>
#include <gatefold/cuda/router/router.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

template <input_noise Noise>
inline constexpr bool is_shared_noise =
    Noise == input_noise::shared_jitter || Noise == input_noise::shared_jitter_twice;

/// Tokens of T to rows of U with the noise of the call (kind Noise) and the norm of a router's input; a warp per row.
template <class T, class U, class R, int Hidden, router_input Input, input_noise Noise, bool Disturbs>
__global__ void __launch_bounds__(256)
    move_rows(const T* __restrict__ x, index_t x_stride, const R* __restrict__ scale, U* __restrict__ to,
              index_t to_stride, int tokens, float noise, counter_rng draw, index_t first_token) {
    using A = accumulate_t<T>;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int t = static_cast<int>(blockIdx.x) * 8 + static_cast<int>(threadIdx.x) / 32;
    if (t >= tokens) return;
    const T* from = x + t * x_stride;
    U* row = to + t * to_stride;
    for (int h = lane; h < Hidden; h += 32) {
        A v = to_accumulate(from[h]);
        if constexpr (Disturbs)
            if (noise > 0)
                v = disturbed_by<Noise, is_shared_noise<Noise>, T>(v, static_cast<A>(noise), draw, first_token + t, h,
                                                                   Hidden);
        row[h] = from_accumulate<U>(v);
    }
    if constexpr (Input != router_input::tokens) {
        static_assert(std::is_same_v<U, A>);
        __syncwarp();
        const A square = __shfl_sync(all_lanes, dot_by_warp<A>(row, row, Hidden), 0);
        if constexpr (Input == router_input::unit_length) {
            const A length = length_floor(gatefold::sqrt(square));
            for (int h = lane; h < Hidden; h += 32) row[h] = row[h] / length;
        } else {
            const A root = gatefold::sqrt(static_cast<A>(Hidden));
            const A rms = gatefold::sqrt(square / static_cast<A>(Hidden) + static_cast<A>(1e-6));
            for (int h = lane; h < Hidden; h += 32)
                row[h] = gatefold::mul(row[h] / rms, to_accumulate(scale[h])) / root;
        }
    }
}

/// out[t, n] = f(x[t] · w[n]), f the tanh of a two-layer projection or nothing.
template <class X, class R, int Depth, int Outputs, bool Tanh, class Shape>
__global__ void __launch_bounds__(plan_threads)
    project_rows(const X* __restrict__ x, index_t x_stride, const R* __restrict__ w, accumulate_t<X>* __restrict__ out,
                 int tokens) {
    using A = accumulate_t<X>;
    using product =
        simt_tile<X, R, Shape::tokens, Shape::experts, Shape::depth, Shape::stages, plan_threads, Shape::rows_each>;
    __shared__ product shared;
    const int thread = static_cast<int>(threadIdx.x), first = static_cast<int>(blockIdx.x) * Shape::tokens;
    const int column = static_cast<int>(blockIdx.y) * Shape::experts;
    A acc[std::size_t{product::rows_each}][std::size_t{product::columns_each}];
    simt_product<product, Depth, plan_threads, X, R>(
        shared, acc, [&](int m) -> const X* { return first + m < tokens ? x + (first + m) * x_stride : nullptr; },
        [&](int n) -> const R* {
            return column + n < Outputs ? w + static_cast<index_t>(column + n) * Depth : nullptr;
        },
        no_factor{});
    GATEFOLD_UNROLL
    for (int i = 0; i < product::rows_each; ++i) {
        GATEFOLD_UNROLL
        for (int j = 0; j < product::columns_each; ++j) {
            const int m = first + thread / product::columns_apart + i * product::rows_apart;
            const int n = column + thread % product::columns_apart + j * product::columns_apart;
            if (m < tokens && n < Outputs)
                out[static_cast<index_t>(m) * Outputs + n] = Tanh ? gatefold::tanh(acc[i][j]) : acc[i][j];
        }
    }
}

/// Brings rows to length 1: `count` rows of features where they lie, then the rows of the head; a warp per row.
template <class A, class R, int Width, int Heads>
__global__ void __launch_bounds__(256)
    normalise_rows(A* features, int count, const R* __restrict__ head, A* directions) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row = static_cast<int>(blockIdx.x) * 8 + static_cast<int>(threadIdx.x) / 32;
    const auto normalise = [&](const auto* from, A* to) {
        const A square = __shfl_sync(all_lanes, dot_by_warp<A>(from, from, Width), 0);
        const A length = length_floor(gatefold::sqrt(square));
        for (int p = lane; p < Width; p += 32) to[p] = to_accumulate(from[p]) / length;
    };
    if (row < count)
        normalise(features + static_cast<index_t>(row) * Width, features + static_cast<index_t>(row) * Width);
    else if (row < count + Heads)
        normalise(head + static_cast<index_t>(row - count) * Width,
                  directions + static_cast<index_t>(row - count) * Width);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
