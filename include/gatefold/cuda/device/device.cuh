// Small things that all kernels share: arguments of a stage, sums and scans over a warp, memory of other blocks.
#pragma once

#include <cstdint>
#include <type_traits>

#include <gatefold/core/dtype.hpp>
#include <gatefold/core/index.hpp>
#include <gatefold/core/math.hpp>
#include <gatefold/cuda/experts/layout.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// Rows [row, row + rows) of the plan, all of one expert: the unit of work of the grouped products.
struct alignas(16) tile {
    std::int32_t expert, row, rows, unused;
};

inline constexpr unsigned all_lanes = 0xffffffffu;

/// Larger of two, smaller of two: without <algorithm>, for host and device.
template <int A, int B>
inline constexpr int larger = A > B ? A : B;
template <int A, int B>
inline constexpr int smaller = A < B ? A : B;

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// The sum over the warp in its order: halves of 16, 8, 4, 2, 1. Every lane gets the same bits.
template <class A>
__device__ __forceinline__ A warp_sum(A v) {
    GATEFOLD_UNROLL
    for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(all_lanes, v, d);
    return v;
}
template <class A>
__device__ __forceinline__ A warp_max(A v) {
    if constexpr (std::is_same_v<A, std::uint32_t>) {
        return __reduce_max_sync(all_lanes, v);
    } else {
        GATEFOLD_UNROLL
        for (int d = 16; d > 0; d /= 2) {
            const A other = __shfl_xor_sync(all_lanes, v, d);
            v = other > v ? other : v;
        }
        return v;
    }
}

/// Sums before this thread over the block, and the total; `scratch` holds an int per warp. Begins with the barrier that
/// lets scratch be used again.
template <int Threads>
__device__ __forceinline__ int block_exclusive(int v, int* scratch, int& total) {
    constexpr int warps = Threads / 32;
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    int sum = v;
    GATEFOLD_UNROLL
    for (int d = 1; d < 32; d *= 2) {
        const int up = __shfl_up_sync(all_lanes, sum, static_cast<unsigned>(d));
        if (lane >= d) sum += up;
    }
    __syncthreads();
    if (lane == 31) scratch[warp] = sum;
    __syncthreads();
    int before = 0;
    total = 0;
    GATEFOLD_UNROLL
    for (int w = 0; w < warps; ++w) {
        const int n = scratch[w];
        before += w < warp ? n : 0;
        total += n;
    }
    return before + sum - v;
}

/// x · g in the order of the CPU's dot product: 16 partial sums, added in halves. Lane 0 has the result.
template <class A, class T, class U>
__device__ __forceinline__ A dot_by_warp(const T* a, const U* b, int n) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    A sum = 0;
    if (lane < 16) {
        // What the chain waits for is memory: several elements are on their way at once.
        GATEFOLD_PRAGMA(unroll 8)
        for (int i = lane; i < n; i += 16) sum = gatefold::fma(to_accumulate(a[i]), to_accumulate(b[i]), sum);
    }
    GATEFOLD_UNROLL
    for (int half = 8; half > 0; half /= 2) sum += __shfl_down_sync(all_lanes, sum, static_cast<unsigned>(half));
    return sum;
}
/// The gate of the shared expert for one token, in lane 0.
template <class T>
__device__ __forceinline__ accumulate_t<T> gate_by_warp(const T* x, const T* weights, int n) {
    return gatefold::sigmoid(dot_by_warp<accumulate_t<T>>(x, weights, n));
}

/// Whether this block is the last of `count` to arrive: then everything the others wrote before is visible to it. The
/// counter is zero again afterwards, so that a graph can be replayed.
__device__ __forceinline__ bool last_to_arrive(unsigned* counter, unsigned count, int* shared_flag) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        const bool last = atomicAdd(counter, 1u) == count - 1;
        if (last) *counter = 0;
        *shared_flag = last ? 1 : 0;
    }
    __syncthreads();
    const bool last = *shared_flag != 0;
    if (last) __threadfence();
    __syncthreads();
    return last;
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
