// The combine on CUDA: a token's weighted sum over its experts, in ascending order of experts, shared expert last.
//
//     z[rows,W] (plan order), weights[T,S], place[T,S] (+ shared[T,H], gate) ──> y[T,H]
//
// A thread owns one vector of a token: z is read once, y is written once. Rows are numbered expert by expert, so
// sorting a token's rows sorts its experts. Sums start from +0, one fma per expert, one rounding at the end.
#pragma once

#include <gatefold/cuda/device/device.cuh>
#include <gatefold/moe/router_math.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

template <class T, class Out = T>
struct combine_arguments {
    using A = accumulate_t<T>;
    const T* z = nullptr;
    index_t z_stride = 0;
    const A* weights = nullptr;                           ///< by pair; null: one
    const std::int32_t *place = nullptr, *ids = nullptr;  ///< no place: row t is token t's
    const T* shared = nullptr;                            ///< what the shared expert returns
    index_t shared_stride = 0;
    const A* gates = nullptr;                    ///< of the shared expert, by token; null: they are computed
    const T *gate = nullptr, *gate_x = nullptr;  ///< weights of that gate, [H], and what it reads
    index_t gate_x_stride = 0;
    const T* x = nullptr;  ///< what experts that compute nothing return
    index_t x_stride = 0;
    const T *constant_gate = nullptr, *constant_value = nullptr;  ///< [constants, 2, H] and [constants, H]
    Out* y = nullptr;
    index_t y_stride = 0;
    int tokens = 0;
    A scale = 1;  ///< of the routed sum
    bool accumulate = false;
};

/// N elements, one access of up to 16 bytes.
template <class T, int N>
struct alignas(N * sizeof(T)) vector_of {
    T at[std::size_t{N}];
};

template <int Hidden, int Vector>
inline constexpr int combine_vectors = (Hidden + Vector - 1) / Vector;
/// Tokens of a block of 256 threads.
template <int Hidden, int Vector>
inline constexpr int combine_tokens = larger<1, 256 / combine_vectors<Hidden, Vector>>;

/// What a sum is made of: choices from Constants on return a mix of x and a learned vector, from Copies on x, from
/// Zeros on nothing. Blend: (1 - weight) x is added to what the one expert returns.
template <int Constants, int Copies, int Zeros, bool Free, bool Shared, bool Gate, bool ScaleOutput, bool Blend>
struct combine_of {
    static constexpr int constants = Constants, copies = Copies, zeros = Zeros;
    static constexpr bool free = Free, mixes = Copies > Constants, shared = Shared, gate = Gate,
                          scale_output = ScaleOutput, blend = Blend;
};

template <class T, class Out, int Hidden, int Slots, class What, int Vector>
__global__ void __launch_bounds__(256) combine(const combine_arguments<T, Out> a) {
    using A = accumulate_t<T>;
    using vector = vector_of<T, Vector>;
    constexpr int together = combine_tokens<Hidden, Vector>, vectors = combine_vectors<Hidden, Vector>;
    __shared__ std::int32_t rows[std::size_t{together}][std::size_t{Slots}];  // ascending; -1 at the end
    __shared__ A weights[std::size_t{together}][std::size_t{Slots}];
    __shared__ A gates[std::size_t{together}];
    [[maybe_unused]] __shared__ A mixes[std::size_t{What::mixes ? together : 1}][std::size_t{Slots}][2];
    const int thread = static_cast<int>(threadIdx.x), first = static_cast<int>(blockIdx.x) * together;

    for (int i = thread; i < together * Slots; i += 256) {
        rows[i / Slots][i % Slots] = -1;
        if constexpr (What::gate)
            if (i < together) gates[i] = 0;
    }
    __syncthreads();
    for (int i = thread; i < together * Slots; i += 256) {
        const int m = i / Slots;
        if (first + m >= a.tokens) continue;
        const index_t pair = static_cast<index_t>(first) * Slots + i, begin = static_cast<index_t>(first + m) * Slots;
        const std::int32_t row = a.place ? a.place[pair] : static_cast<std::int32_t>(pair);
        if (row < 0) continue;
        int rank = 0;
        for (int s = 0; s < Slots && a.place; ++s) {
            const std::int32_t other = a.place[begin + s];
            rank += other >= 0 && other < row ? 1 : 0;
        }
        // Rows of experts that compute nothing stand behind the others, marked by what they are.
        std::int32_t mark = row;
        if constexpr (What::free) {
            const std::int32_t e = a.ids[pair];
            if (e >= What::copies)
                mark = e >= What::zeros ? -1 : -2;
            else if (e >= What::constants)
                mark = -3 - (e - What::constants);
        }
        rows[m][rank] = mark;
        weights[m][rank] = a.weights ? a.weights[pair] : A(1);
    }
    if constexpr (What::mixes) {
        __syncthreads();
        for (int i = thread / 32; i < together * Slots; i += 8) {
            const std::int32_t c = -3 - rows[i / Slots][i % Slots];
            if (c < 0) continue;
            const T* x = a.x + (first + i / Slots) * a.x_stride;
            const T* gate = a.constant_gate + index_t{c} * 2 * Hidden;
            const A z[2] = {dot_by_warp<A>(x, gate, Hidden), dot_by_warp<A>(x, gate + Hidden, Hidden)};
            if (thread % 32 != 0) continue;
            const A m = largest(z, 2), one = softmax_term(z[0], m), two = softmax_term(z[1], m), total = one + two;
            mixes[i / Slots][i % Slots][0] = share_of(one, total);
            mixes[i / Slots][i % Slots][1] = share_of(two, total);
        }
    }
    if constexpr (What::gate) {
        for (int m = thread / 32; m < together && first + m < a.tokens; m += 8) {
            const index_t t = first + m;
            const A gate = a.gates ? a.gates[t] : gate_by_warp(a.gate_x + t * a.gate_x_stride, a.gate, Hidden);
            if (thread % 32 == 0) gates[m] = gate;
        }
    }
    __syncthreads();

    const int at = static_cast<int>(blockIdx.y) * 256 + thread, m = together == 1 ? 0 : at / vectors;
    const int h = (at - m * vectors) * Vector;
    if (m >= together || h >= Hidden || first + m >= a.tokens) return;
    const index_t t = first + m;
    A sum[std::size_t{Vector}];
    GATEFOLD_UNROLL
    for (int i = 0; i < Vector; ++i) sum[i] = 0;
    const auto add = [&](A weight, const T* from) {
        const vector v = *reinterpret_cast<const vector*>(from);
        GATEFOLD_UNROLL
        for (int i = 0; i < Vector; ++i) sum[i] = gatefold::fma(weight, to_accumulate(v.at[i]), sum[i]);
    };
    GATEFOLD_UNROLL
    for (int s = 0; s < Slots; ++s) {
        const std::int32_t row = rows[m][s];
        if (row >= 0) add(weights[m][s], a.z + row * a.z_stride + h);
        if constexpr (What::free)
            if (row == -2) add(weights[m][s], a.x + t * a.x_stride + h);
        if constexpr (What::mixes) {
            if (row < -2) {
                add(gatefold::mul(weights[m][s], mixes[m][s][0]), a.x + t * a.x_stride + h);
                add(gatefold::mul(weights[m][s], mixes[m][s][1]), a.constant_value + index_t{-3 - row} * Hidden + h);
            }
        }
        if constexpr (What::blend)
            if (row >= 0) add(A(1) - weights[m][s], a.x + t * a.x_stride + h);
    }
    if constexpr (What::scale_output) {
        GATEFOLD_UNROLL
        for (int i = 0; i < Vector; ++i) sum[i] = gatefold::mul(sum[i], a.scale);
    }
    if constexpr (What::shared) add(What::gate ? gates[m] : A(1), a.shared + t * a.shared_stride + h);
    if constexpr (std::is_same_v<T, Out>) {
        vector* to = reinterpret_cast<vector*>(a.y + t * a.y_stride + h);
        if (a.accumulate) {
            const vector old = *to;
            GATEFOLD_UNROLL
            for (int i = 0; i < Vector; ++i) sum[i] += to_accumulate(old.at[i]);
        }
        vector result;
        GATEFOLD_UNROLL
        for (int i = 0; i < Vector; ++i) result.at[i] = from_accumulate<T>(sum[i]);
        *to = result;
    } else {
        static_assert(std::is_same_v<Out, A>);
        GATEFOLD_UNROLL
        for (int i = 0; i < Vector; ++i) a.y[t * a.y_stride + h + i] = sum[i];
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
