// What became of a routing: how the load lies on the experts, and how far it is from even.
//
//     ids, plan ── expert_counts ──> counts[N], summed over a window ── balance_of ──> MaxVio, entropy, dead experts,
//     ...
#pragma once

#include <cmath>
#include <cstdint>

#include <gatefold/core/error.hpp>
#include <gatefold/core/view.hpp>

namespace gatefold::inline v0 {

/// Measures of a load c over N experts (arXiv 2408.15664, §4.1; OLMoE, §5); all zero for an empty load.
struct balance_metrics {
    double max_violation = 0;      ///< max c / mean c - 1
    double min_violation = 0;      ///< 1 - min c / mean c
    double mean_violation = 0;     ///< mean |c / mean c - 1|
    double variation = 0;          ///< standard deviation / mean
    double entropy = 0;            ///< entropy of c / sum c, divided by log N: 1 is even
    double effective_experts = 0;  ///< exp of that entropy, not divided
    double participation = 0;      ///< (sum c)^2 / sum c^2
    int dead = 0;                  ///< experts with c = 0
    int starved = 0;               ///< experts with c below a hundredth of the mean
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Adds the number of times that each expert stands in `ids` (-1 skipped) to counts[N].
template <class Ids>
void add_expert_counts(const Ids& ids, view<index_t, dyn> counts) {
    for (index_t r = 0; r < ids.rows(); ++r)
        for (index_t s = 0; s < ids.extent(Ids::rank - 1); ++s) {
            const std::int32_t e = ids.row(r)[s];
            require(e >= -1 && e < counts.extent(0), "add_expert_counts", "ids", "experts below the number of counts",
                    e);
            if (e >= 0) ++counts[e];
        }
}

/// The measures of a load.
inline balance_metrics balance_of(view<const index_t, dyn> counts) {
    balance_metrics m;
    const index_t n = counts.extent(0);
    double total = 0, squares = 0, largest = 0, smallest = 0;
    for (index_t i = 0; i < n; ++i) {
        const auto c = static_cast<double>(counts[i]);
        total += c;
        squares += c * c;
        largest = c > largest ? c : largest;
        smallest = i == 0 || c < smallest ? c : smallest;
    }
    if (total <= 0) return m;
    const auto experts = static_cast<double>(n);
    const double mean = total / experts;
    double entropy = 0, deviations = 0, variance = 0;
    for (index_t i = 0; i < n; ++i) {
        const auto c = static_cast<double>(counts[i]);
        if (c > 0) entropy -= c / total * std::log(c / total);
        deviations += std::fabs(c / mean - 1);
        variance += (c - mean) * (c - mean) / experts;
        m.dead += c == 0;
        m.starved += c < 0.01 * mean;
    }
    m.max_violation = largest / mean - 1;
    m.min_violation = 1 - smallest / mean;
    m.mean_violation = deviations / experts;
    m.variation = std::sqrt(variance) / mean;
    m.entropy = n > 1 ? entropy / std::log(experts) : 1;
    m.effective_experts = std::exp(entropy);
    m.participation = total * total / squares;
    return m;
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
