// What became of a routing: how the load lies on the experts, and how far it is from even.
//
//     ids ── add_expert_counts ──> counts[N], summed over a window ── balance_of ──> MaxVio, entropy, dead experts, ...
//
// A whole window of forward calls, with dropped pairs, co-activation and logits: stats_window.hpp; as text and JSON:
// stats_report.hpp.
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

/// Adds the number of times that each expert stands in `ids` [T, S] (-1 skipped) to counts [N]. Tokens whose `mask` is
/// 0 are left out.
///
/// Throws: argument_error for ids that have no count or a mask that does not fit; counts are untouched then.
template <class Ids>
void add_expert_counts(const Ids& ids, view<index_t, dyn> counts, view<const std::uint8_t, dyn> mask = {}) {
    const index_t slots = ids.extent(Ids::rank - 1);
    require(!mask.data() || mask.extent(0) == ids.rows(), "add_expert_counts", "mask", ids.rows(), mask.extent(0));
    for (index_t r = 0; r < ids.rows(); ++r)
        for (index_t s = 0; s < slots; ++s)
            require(ids.row(r)[s] >= -1 && ids.row(r)[s] < counts.extent(0), "add_expert_counts", "ids",
                    "experts below the number of counts", ids.row(r)[s]);
    for (index_t r = 0; r < ids.rows(); ++r)
        for (index_t s = 0; s < slots; ++s)
            if (const std::int32_t e = ids.row(r)[s]; e >= 0 && (!mask.data() || mask[r] != 0)) ++counts[e];
}

/// Adds to counts [D, N] how often the tokens of each of D domains chose each expert: labels [T] name a token's domain,
/// or its vocabulary id, -1 leaves it out. A row divided by its sum is how the domain specialises (OLMoE, §5).
///
/// Throws: as above, also for labels that have no row.
template <class Ids>
void add_domain_counts(const Ids& ids, view<const std::int32_t, dyn> labels, view<index_t, dyn, dyn> counts) {
    const index_t slots = ids.extent(Ids::rank - 1);
    require(labels.extent(0) == ids.rows(), "add_domain_counts", "labels", ids.rows(), labels.extent(0));
    for (index_t r = 0; r < ids.rows(); ++r) {
        require(labels[r] >= -1 && labels[r] < counts.extent(0), "add_domain_counts", "labels",
                "domains below the number of rows", labels[r]);
        for (index_t s = 0; s < slots; ++s)
            require(ids.row(r)[s] >= -1 && ids.row(r)[s] < counts.extent(1), "add_domain_counts", "ids",
                    "experts below the number of counts", ids.row(r)[s]);
    }
    for (index_t r = 0; r < ids.rows(); ++r)
        for (index_t s = 0; labels[r] >= 0 && s < slots; ++s)
            if (const std::int32_t e = ids.row(r)[s]; e >= 0) ++counts(labels[r], e);
}

/// Router saturation: the share of the choices `early` that stand in `late` for the same token (OLMoE, §5). Both [T,
/// S].
template <class Early, class Late>
double saturation(const Early& early, const Late& late) {
    const index_t slots = early.extent(Early::rank - 1);
    require(early.rows() == late.rows() && slots == late.extent(Late::rank - 1), "saturation", "late",
            "ids of the same tokens", late.rows());
    index_t same = 0, all = 0;
    for (index_t r = 0; r < early.rows(); ++r)
        for (index_t s = 0; s < slots; ++s) {
            if (early.row(r)[s] < 0) continue;
            ++all;
            bool found = false;
            for (index_t other = 0; other < slots; ++other) found = found || early.row(r)[s] == late.row(r)[other];
            same += found ? 1 : 0;
        }
    return all == 0 ? 0 : static_cast<double>(same) / static_cast<double>(all);
}

/// The measures of a load: counts, or sums of weights.
template <class T>
balance_metrics balance_of(view<const T, dyn> load) {
    balance_metrics m;
    const index_t n = load.extent(0);
    double total = 0, squares = 0, largest = 0, smallest = 0;
    for (index_t i = 0; i < n; ++i) {
        const auto c = static_cast<double>(load[i]);
        total += c;
        squares += c * c;
        largest = c > largest ? c : largest;
        smallest = i == 0 || c < smallest ? c : smallest;
    }
    if (!(total > 0)) return m;
    const auto experts = static_cast<double>(n);
    const double mean = total / experts;
    double entropy = 0, deviations = 0, variance = 0;
    for (index_t i = 0; i < n; ++i) {
        const auto c = static_cast<double>(load[i]);
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
inline balance_metrics balance_of(view<const index_t, dyn> counts) { return balance_of<index_t>(counts); }

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
