// Rows of the plan added up per token as they come: what the down projection does instead of storing them, where the
// caller gives up the order of the sum.
//
//     float, double: rows ── atomic additions ──> y
//     16 bits:       rows ── atomic additions ──> sums[T, W] ── the last of a token's rows to arrive rounds ──> y
//
// Who is last is counted for every 32 outputs of a token. The up projections, which run before, make everything zero.
#pragma once

#include <cstdint>
#include <type_traits>

#include <gatefold/cuda/device/device.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// Where rows are added to, and with which weight.
template <class T>
struct row_sums {
    using A = accumulate_t<T>;
    static constexpr bool rounds = !std::is_same_v<T, A>;
    static constexpr int window = 32;  ///< outputs that are rounded at once

    A* sums = nullptr;  ///< [tokens, stride]; y itself where nothing is rounded
    index_t stride = 0;
    const A* weights = nullptr;                             ///< by pair; null: one
    const std::int32_t *pairs = nullptr, *place = nullptr;  ///< of the plan
    int shared_row = 0;                                     ///< from this row on every token has one, of weight one
    T* y = nullptr;
    index_t y_stride = 0;
    unsigned* arrived = nullptr;  ///< [tokens, windows], in strips of 16 outputs
    A scale = 1;                  ///< of every weight of the plan
    int tokens = 0, slots = 1;
    int rows_each = 1;        ///< rows of a token, those that a capacity dropped included
    bool clears = false;      ///< the kernel that is given this makes the sums zero
    bool accumulate = false;  ///< y is added to

    __device__ __forceinline__ index_t token_of(index_t row) const {
        return row < shared_row ? pairs[row] / slots : row - shared_row;
    }
    __device__ __forceinline__ A weight_of(index_t row) const {
        if (row >= shared_row) return A(1);
        return weights ? gatefold::mul(weights[pairs[row]], scale) : scale;
    }
};

/// Strips of 16 outputs in a window.
template <int Width>
__device__ __forceinline__ int strips_of_window(int window) {
    return (Width + 15) / 16 - 2 * window < 2 ? 1 : 2;
}

/// Zero sums and counts for all tokens, by all blocks of a kernel; rows that a capacity dropped count as there.
template <int Width, class T>
__device__ __forceinline__ void clear_sums(const row_sums<T>& s) {
    using A = accumulate_t<T>;
    constexpr int windows = (Width + row_sums<T>::window - 1) / row_sums<T>::window;
    if (!s.clears) return;
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    const int block = static_cast<int>(blockIdx.y * gridDim.x + blockIdx.x);
    for (index_t t = block; t < s.tokens; t += static_cast<int>(gridDim.x * gridDim.y)) {
        if (row_sums<T>::rounds || !s.accumulate)
            for (int h = thread; h < Width; h += threads) s.sums[t * s.stride + h] = A(0);
        if constexpr (row_sums<T>::rounds) {
            const int lane = thread % 32;
            for (int q = thread; q - lane < windows; q += threads) {
                int absent = 0;
                for (int i = 0; i < s.slots; i += 32) {
                    const bool dropped = i + lane < s.slots && s.place[t * s.slots + i + lane] < 0;
                    absent += __popc(__ballot_sync(all_lanes, dropped));
                }
                if (q >= windows) continue;
                s.arrived[t * windows + q] = static_cast<unsigned>(absent * strips_of_window<Width>(q));
                if (absent < s.rows_each || s.accumulate) continue;
                for (int n = q * row_sums<T>::window; n < (q + 1) * row_sums<T>::window && n < Width; ++n)
                    s.y[t * s.y_stride + n] = from_accumulate<T>(A(0));
            }
        }
    }
}

/// One output of a row.
template <class T, class A>
__device__ __forceinline__ void add_output(const row_sums<T>& s, index_t token, int n, A v) {
    atomicAdd(s.sums + token * s.stride + n, v);
}

/// What a warp keeps of 8 rows and 32 outputs, to turn it around: a row of it is one access. The pitch keeps rows in
/// different banks.
struct turned_window {
    float at[8][row_sums<bf16>::window + 1];
};
/// One for each warp of the block.
template <int Warps>
__device__ __forceinline__ turned_window& window_of_warp(int warp) {
    __shared__ turned_window all[Warps];
    return all[warp];
}

/// Adds the first `rows` rows of a window whose outputs begin at `first`; lane r knows token and weight of row r.
template <int Width, class T>
__device__ __forceinline__ void add_window(const row_sums<T>& s, const turned_window& w, index_t token, float weight,
                                           int rows, int first, int lane) {
    __syncwarp();
    for (int r = 0; r < rows; ++r) {
        const index_t t = __shfl_sync(all_lanes, token, r);
        const float factor = __shfl_sync(all_lanes, weight, r);
        if (first + lane < Width) add_output(s, t, first + lane, gatefold::mul(factor, w.at[r][lane]));
    }
    __syncwarp();
}

/// Says that the warp has added `strips` strips from strip `first` on of `rows` rows, and rounds what is complete with
/// that. Either one strip, or whole windows.
template <int Width, class T>
__device__ __forceinline__ void arrive(const row_sums<T>& s, index_t row, int rows, int first, int strips, int lane) {
    if constexpr (row_sums<T>::rounds) {
        constexpr int window = row_sums<T>::window, windows = (Width + window - 1) / window;
        const int first_window = first / 2, count = (first + strips + 1) / 2 - first_window;
        __threadfence();
        __syncwarp();
        for (int base = 0; base < rows * count; base += 32) {
            const int i = base + lane;
            index_t place = 0;
            bool last = false;
            if (i < rows * count) {
                const int q = first_window + i % count, all = strips_of_window<Width>(q), mine = strips == 1 ? 1 : all;
                place = s.token_of(row + i / count) * windows + q;
                last = atomicAdd(s.arrived + place, static_cast<unsigned>(mine)) + static_cast<unsigned>(mine) ==
                       static_cast<unsigned>(s.rows_each * all);
            }
            for (unsigned left = __ballot_sync(all_lanes, last); left != 0; left &= left - 1) {
                __syncwarp();
                __threadfence();
                const index_t there = __shfl_sync(all_lanes, place, __ffs(static_cast<int>(left)) - 1);
                const index_t t = there / windows;
                const int n = static_cast<int>(there - t * windows) * window + lane;
                if (n >= Width) continue;
                float v = __ldcg(s.sums + t * s.stride + n);
                T* to = s.y + t * s.y_stride + n;
                if (s.accumulate) v += to_accumulate(*to);
                *to = from_accumulate<T>(v);
            }
        }
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
