// Balancing without a loss: controllers that move the selection bias by how often experts were chosen.
//
//     counts of every micro-batch ── load_counts::add ──> counts ── update(bias, counts), once per optimiser step ──>
//     bias
//
// The bias enters the choice only, never the weights, so nothing of it reaches the gradients.
#pragma once

#include <cstdint>

#include <gatefold/core/error.hpp>
#include <gatefold/core/view.hpp>

namespace gatefold::inline v0 {

/// b_i += rate · sign(mean count - count_i): auxiliary-loss-free balancing (arXiv 2408.15664), DeepSeek-V3 with 0.001.
struct sign_bias {
    double rate = 0.001;
};

/// b_i += rate · (mean count - count_i): the variant of the same paper without the sign.
struct additive_bias {
    double rate = 0.001;
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Moves the bias [N] by one step of the controller for the counts [N] of one optimiser step.
///
/// Throws: argument_error for extents that differ; the bias is untouched then.
template <class Controller, class A, int N>
void update(const Controller& controller, view<A, N> bias, std::type_identity_t<view<const index_t, dyn>> counts) {
    require(bias.data() && bias.extent(0) == counts.extent(0), "update", "counts", bias.extent(0), counts.extent(0));
    index_t total = 0;
    for (const index_t count : counts) total += count;
    const index_t n = counts.extent(0);
    for (index_t i = 0; i < n; ++i) {
        // Compared as total against n · count: whole numbers, so that a tie is a tie.
        const index_t difference = total - n * counts[i];
        double step = 0;
        if constexpr (__is_same(Controller, sign_bias))
            step = difference > 0 ? controller.rate : difference < 0 ? -controller.rate : 0;
        else
            step = controller.rate * (static_cast<double>(difference) / static_cast<double>(n));
        bias[i] = static_cast<A>(static_cast<double>(bias[i]) + step);
    }
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
