// The block-sparse form of a layer's experts as a type; moe/sparse.hpp makes it.
//
// A block is what one panel of the kernels reads in 32 steps of k: 2 W outputs (where there is a gate, W gates and the
// W ups of the same features) × 32 inputs, W lanes of a register. Blocks of which every bit is zero are not stored.
#pragma once

#include <cstdint>

#include <gatefold/core/buffer.hpp>
#include <gatefold/core/tensor.hpp>
#include <gatefold/moe/weights.hpp>

namespace gatefold::inline v0::detail {

/// Stored blocks that follow one another in a panel: `steps` steps from `step` on.
struct sparse_run {
    std::int32_t step, steps;
    index_t offset;  ///< of the first stream, in elements from the start of all matrices
};

/// What the kernels have to know of one projection of one expert.
struct sparse_matrix {
    index_t panel;          ///< its first entry in `panels`
    index_t begin, stored;  ///< first element and number of elements
    std::int32_t exponent;  ///< the least biased exponent among weights that are not zero, in the type of sums
    bool finite;
};

}  // namespace gatefold::inline v0::detail

namespace gatefold::inline v0 {

/// The parameters of layer L with the matrices of the experts in block-sparse packed form; everything else is as in
/// packed<L>. Forward gives the bits that packed<L> gives.
template <layer_type L>
struct sparse : parameter_set<L, detail::owning<cpu>::template slot, false> {
    using backend = cpu;

    basic_tensor<cpu, std::byte, dyn> matrices;  ///< stored blocks: routed experts in order, then the shared one
    buffer<detail::sparse_run> runs;
    buffer<index_t> panels;                 ///< the first run of each panel, and the number of all runs
    buffer<detail::sparse_matrix> summary;  ///< first and second projection of each expert

    /// Bytes that are stored for expert e, local_experts for the shared one: what a call with rows for it reads at
    /// most.
    GATEFOLD_INLINE index_t bytes(int e) const {
        const int all = L::local_experts + (L::shared_ffn > 0 ? 1 : 0);
        require(e >= 0 && e < all, "sparse::bytes", "e", "an index below the number of experts", e);
        const index_t begin = summary.data()[2 * e].panel;
        const index_t end = e + 1 < all ? summary.data()[2 * e + 2].panel : panels.size() - 1;
        const index_t elements = summary.data()[2 * e].stored + summary.data()[2 * e + 1].stored;
        return elements * static_cast<index_t>(sizeof(typename L::value_type)) +
               (panels.data()[end] - panels.data()[begin]) * static_cast<index_t>(sizeof(detail::sparse_run)) +
               (end - begin) * static_cast<index_t>(sizeof(index_t));
    }
    /// Bytes of the matrices of all experts, their index included.
    GATEFOLD_INLINE index_t bytes() const {
        index_t sum = 0;
        for (int e = 0; 2 * e < static_cast<int>(summary.size()); ++e) sum += bytes(e);
        return sum;
    }
};

}  // namespace gatefold::inline v0
