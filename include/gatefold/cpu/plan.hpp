// The plan on the CPU: a counting sort of (token, slot) pairs by expert.
//
//     ids[T*S] ──> counts[part][N] ──> starts (expert-major, parts in order) ──> rows, place
//
// Stable, because parts are consecutive runs of tokens and their starts follow in that order; the number of parts
// changes who counts, never the result. Two passes over the ids, one over N counts per part.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/cpu/phases.hpp>
#include <gatefold/cpu/rows.hpp>
#include <gatefold/moe/plan.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Below this many pairs a second thread costs more than it counts.
inline constexpr index_t pairs_per_part = 8192;

inline constexpr std::size_t plan_scratch_bytes(int choices, int threads) {
    return std::size_t{2} * static_cast<std::size_t>(threads) * static_cast<std::size_t>(choices) *
           sizeof(std::int32_t);
}

/// Builds the plan for `ids` in two phases, count() and then the object itself; a pair with id -1, or with kept[pair]
/// == 0 where `kept` is given, goes to no expert.
///
/// Ids must lie in [-1, choices). Rows past offsets[choices] are not written. `scratch`: plan_scratch_bytes.
class plan_builder {
public:
    plan_builder(int parts, const std::int32_t* ids, const std::uint8_t* kept, int choices, const plan_view<cpu>& out,
                 std::byte* scratch)
        : parts_(parts),
          choices_(choices),
          ids_(ids),
          kept_(kept),
          out_(out),
          counts_(reinterpret_cast<std::int32_t*>(scratch)) {}

    /// Counts the pairs of one part of the tokens.
    void count(int part) const {
        std::int32_t* counts = counts_of(part);
        for (int e = 0; e < choices_; ++e) counts[e] = 0;
        for_each_pair(part, [&](index_t, std::int32_t e) {
            if (e >= 0) ++counts[e];
        });
    }
    /// Gives them their rows, once all parts have counted.
    void operator()(int part) const {
        std::int32_t* next = counts_of(parts_ + part);
        std::int32_t running = 0;
        for (int e = 0; e < choices_; ++e) {
            if (part == 0) out_.offsets[e] = running;
            for (int other = 0; other < parts_; ++other) {
                if (other == part) next[e] = running;
                running += counts_of(other)[e];
            }
        }
        if (part == 0) out_.offsets[choices_] = running;
        for_each_pair(part, [&](index_t pair, std::int32_t e) {
            const std::int32_t row = e < 0 ? -1 : next[e]++;
            out_.place[pair] = row;
            if (row >= 0) out_.rows[row] = static_cast<std::int32_t>(pair);
        });
    }

private:
    std::int32_t* counts_of(int part) const { return counts_ + index_t{part} * choices_; }
    template <class Body>
    void for_each_pair(int part, const Body& body) const {
        const range tokens = part_of(out_.tokens, part, parts_);
        for (index_t pair = tokens.begin * out_.slots; pair < tokens.end * out_.slots; ++pair)
            body(pair, kept_ && !kept_[pair] ? -1 : ids_[pair]);
    }

    int parts_, choices_;
    const std::int32_t* ids_;
    const std::uint8_t* kept_;
    plan_view<cpu> out_;
    std::int32_t* counts_;  ///< [parts, choices], and behind it the next row of each
};

/// The plan in a region of its own; see plan_builder.
inline void build_plan(context<cpu>& ctx, const std::int32_t* ids, const std::uint8_t* kept, int choices,
                       const plan_view<cpu>& out, std::byte* scratch) {
    const index_t most = ceil_div(out.tokens * out.slots, pairs_per_part);
    const int parts = most < ctx.threads() ? static_cast<int>(most < 1 ? 1 : most) : ctx.threads();
    const plan_builder plan(parts, ids, kept, choices, out, scratch);
    const auto count = [&](int part) { plan.count(part); };
    phase_list phases;
    phases.add(parts, count);
    phases.add(parts, plan);
    ctx.parallel(phases);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
