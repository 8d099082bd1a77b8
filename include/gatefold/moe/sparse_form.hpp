// The block-sparse form of a layer's experts as a type; moe/sparse.hpp makes it.
//
// A block is what one panel of the kernels reads in 32 steps of k: 2 W outputs (where there is a gate, W gates and the
// W ups of the same features) × 32 inputs, W lanes of a register. Blocks of which every bit is zero are not stored.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <gatefold/core/buffer.hpp>
#include <gatefold/core/tensor.hpp>
#include <gatefold/moe/weights.hpp>

namespace gatefold::inline v0::detail {

/// Stored blocks that follow one another in a panel: `steps` steps from `step` on.
struct sparse_run {
    std::int32_t step, steps;
    index_t offset;  ///< of the first stream, in elements from the start of the expert's matrices
};

/// What the kernels have to know of one projection of one expert.
struct sparse_matrix {
    index_t panel;          ///< its first entry in the expert's `panels`
    index_t begin, stored;  ///< first element and number of elements
    std::int32_t exponent;  ///< the least biased exponent among weights that are not zero, in the type of sums
    bool finite;
};

/// One expert: first and second projection, one after the other.
struct sparse_blocks {
    buffer<std::byte> matrices;
    buffer<sparse_run> runs;
    buffer<index_t> panels;  ///< the first run of each panel, and the number of all runs
    sparse_matrix summary[2] = {};

    GATEFOLD_INLINE index_t bytes() const {
        return matrices.size() + runs.size() * static_cast<index_t>(sizeof(sparse_run)) +
               (panels.size() - 1) * static_cast<index_t>(sizeof(index_t));
    }
};

}  // namespace gatefold::inline v0::detail

namespace gatefold::inline v0 {

/// The parameters of layer L with the matrices of the experts in block-sparse packed form; everything else is as in
/// packed<L>. Forward gives the bits that packed<L> gives.
template <layer_type L>
struct sparse : parameter_set<L, detail::owning<cpu>::template slot, false> {
    using backend = cpu;

    /// Routed experts in order, then the shared one.
    std::array<detail::sparse_blocks, std::size_t{L::local_experts} + (L::shared_ffn > 0 ? 1 : 0)> experts;

    /// Bytes that are stored for expert e, local_experts for the shared one: what a call with rows for it reads at
    /// most.
    GATEFOLD_INLINE index_t bytes(int e) const {
        require(e >= 0 && e < static_cast<int>(experts.size()), "sparse::bytes", "e",
                "an index below the number of experts", e);
        return experts[static_cast<std::size_t>(e)].bytes();
    }
    /// Bytes of the matrices of all experts, their index included.
    GATEFOLD_INLINE index_t bytes() const {
        index_t sum = 0;
        for (const detail::sparse_blocks& e : experts) sum += e.bytes();
        return sum;
    }
};

}  // namespace gatefold::inline v0
