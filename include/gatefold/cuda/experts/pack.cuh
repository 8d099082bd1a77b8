// Packing on CUDA: from the hub's layout to the order of the matrix kernels (layout.hpp). A thread moves 16 bytes.
#pragma once

#include <gatefold/cuda/gemm/mma.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

template <class T, bool Gated, int N, int K>
__global__ void __launch_bounds__(256)
    pack_projection(const T* __restrict__ hub, T* __restrict__ packed, index_t chunks) {
    using X = projection_shape<Gated, N, K>;
    constexpr index_t chunks_each = X::elements / 8, steps = X::padded / 16;
    constexpr index_t hub_elements = index_t{Gated ? 2 * N : N} * K;
    const index_t c = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x;
    if (c >= chunks) return;
    const index_t expert = c / chunks_each, within = c - expert * chunks_each, piece = within / 32;
    const int lane = static_cast<int>(within % 32), matrix = lane / 8;
    const index_t block = piece / (block_strips * steps), rest = piece - block * block_strips * steps;
    const int first = static_cast<int>(block) * block_strips, live = live_strips(first, X::strips);
    const int strip = first + static_cast<int>(rest % live), k = static_cast<int>(rest / live) * 16 + matrix % 2 * 8;
    const int n = weight_row_of(strip * 16 + matrix / 2 * 8 + lane % 8, Gated, N, X::groups);
    const T* from = hub + expert * hub_elements + static_cast<index_t>(n < 0 ? 0 : n) * K + k;
    std::uint32_t words[4];
    GATEFOLD_UNROLL
    for (int i = 0; i < 4; ++i) {
        const std::uint32_t low = n >= 0 && k + 2 * i < K ? from[2 * i].bits : 0u;
        const std::uint32_t high = n >= 0 && k + 2 * i + 1 < K ? from[2 * i + 1].bits : 0u;
        words[i] = low | high << 16;
    }
    store_words(packed + c * 8, words);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
