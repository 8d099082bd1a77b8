// One grouped product: many experts, each by the rows that chose it, and where it is so asked one more expert by all.
//
//     tile list [tiles of the shared expert][tiles of the plan, heavy experts first]
//     rows      [rows of the plan ................. shared.row)[one row per token]
//
// The shared expert of a layer whose width is that of the routed ones rides along: two launches less, and its tiles
// fill the device together with theirs. Its weights lie elsewhere and its rows are all tokens, so no list on the device
// knows it: tiles with the number `shared_expert` are computed where they are asked for. `WithShared` compiles that in.
#pragma once

#include <gatefold/cuda/device/device.cuh>
#include <gatefold/cuda/experts/row_sums.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// The expert of a tile whose rows are all tokens.
inline constexpr int shared_expert = -1;

/// What a product of the shared expert reads and leaves apart from the others: row t of `in` is token t.
template <class T>
struct shared_product {
    const T* in = nullptr;
    index_t in_stride = 0;
    const T *weights = nullptr, *bias = nullptr;
    T* pre = nullptr;
    accumulate_t<T> limit = 0;
    int row = 0;  ///< of the output: token 0 has this one
};

/// Arguments of one grouped product.
template <class T>
struct grouped_product {
    using A = accumulate_t<T>;
    static constexpr bool sums = false;  ///< rows are stored
    const T* in = nullptr;               ///< rows of tokens, or of activations
    index_t in_stride = 0;
    const T* weights = nullptr;  ///< [experts, weight rows, K]
    const T* bias = nullptr;     ///< [experts, weight rows]
    T* out = nullptr;            ///< row of the plan, or token where there is no plan
    index_t out_stride = 0;
    T* pre = nullptr;  ///< pre-activations for the tape, or null
    const tile* tiles = nullptr;
    const std::int32_t* tile_count = nullptr;
    const std::int32_t* pairs = nullptr;  ///< pair of each row of the plan: the gather
    const A* factor = nullptr;            ///< by pair, multiplies the input
    int slots = 1;
    int rows = 0;  ///< without tiles: all rows, expert 0; with a shared expert: its rows
    A limit = 0;
    shared_product<T> shared = {};
};

/// Arguments of a product whose rows are added up per token: up projections make the sums zero, down projections add.
template <class T>
struct summed_product : grouped_product<T> {
    static constexpr bool sums = true;
    row_sums<T> to;
};

template <bool WithShared, class T>
__device__ __forceinline__ int tile_count_of(const grouped_product<T>& p, int tile_rows) {
    if constexpr (WithShared) return *p.tile_count + (p.rows + tile_rows - 1) / tile_rows;
    return p.tiles ? *p.tile_count : (p.rows + tile_rows - 1) / tile_rows;
}
/// Tile number i of tile_count_of().
template <bool WithShared, class T>
__device__ __forceinline__ tile tile_at(const grouped_product<T>& p, int i, int tile_rows) {
    const int own = WithShared ? (p.rows + tile_rows - 1) / tile_rows : 0;
    if (WithShared ? i >= own : p.tiles != nullptr) {
        const int4 v = __ldg(reinterpret_cast<const int4*>(p.tiles) + (i - own));
        return {v.x, v.y, v.z, 0};
    }
    const int first = i * tile_rows, rows = p.rows - first < tile_rows ? p.rows - first : tile_rows;
    return {WithShared ? shared_expert : 0, (WithShared ? p.shared.row : 0) + first, rows, 0};
}

/// Number of the input row behind output row `row`, of those that begin at input_of() and are stride_of() apart.
template <bool WithShared, class T>
__device__ __forceinline__ index_t source_of(const grouped_product<T>& p, int expert, index_t row) {
    if constexpr (WithShared)
        if (expert == shared_expert) return row - p.shared.row;
    return p.pairs ? p.pairs[row] / p.slots : row;
}
template <bool WithShared, class T>
__device__ __forceinline__ const T* input_of(const grouped_product<T>& p, int expert) {
    if constexpr (WithShared)
        if (expert == shared_expert) return p.shared.in;
    return p.in;
}
template <bool WithShared, class T>
__device__ __forceinline__ index_t stride_of(const grouped_product<T>& p, int expert) {
    if constexpr (WithShared)
        if (expert == shared_expert) return p.shared.in_stride;
    return p.in_stride;
}
/// The matrix of an expert, of `elements` elements each.
template <bool WithShared, class T>
__device__ __forceinline__ const T* weights_of(const grouped_product<T>& p, int expert, index_t elements) {
    if constexpr (WithShared)
        if (expert == shared_expert) return p.shared.weights;
    return p.weights + expert * elements;
}
/// The biases of an expert, one per weight row.
template <bool WithShared, class T>
__device__ __forceinline__ const T* bias_of(const grouped_product<T>& p, int expert, int weight_rows) {
    if constexpr (WithShared)
        if (expert == shared_expert) return p.shared.bias;
    return p.bias + index_t{expert} * weight_rows;
}
/// Where the pre-activations of output row `row` go, if any are kept: if p.pre is there.
template <bool WithShared, class T>
__device__ __forceinline__ T* pre_of(const grouped_product<T>& p, int expert, index_t row, int weight_rows) {
    if constexpr (WithShared)
        if (expert == shared_expert) return p.shared.pre + (row - p.shared.row) * weight_rows;
    return p.pre + row * weight_rows;
}
/// What multiplies the input of row m of a tile.
template <bool WithShared, class T>
__device__ __forceinline__ accumulate_t<T> factor_of(const grouped_product<T>& p, const tile& at, int m) {
    if (m >= at.rows) return 0;
    if constexpr (WithShared)
        if (at.expert == shared_expert) return 1;
    return p.factor[p.pairs ? p.pairs[at.row + m] : at.row + m];
}
template <bool WithShared, class T>
__device__ __forceinline__ accumulate_t<T> limit_of(const grouped_product<T>& p, int expert) {
    if constexpr (WithShared)
        if (expert == shared_expert) return p.shared.limit;
    return p.limit;
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
