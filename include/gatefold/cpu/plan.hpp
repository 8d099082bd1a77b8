// The plan on the CPU: a counting sort of (token, slot) pairs by expert.
//
//     ids[T*S] ──> counts[part][N] ──> starts (expert-major, parts in order) ──> rows, place
//
// Stable, because parts are consecutive runs of pairs and their starts follow in that order; the number of parts
// changes who counts, never the result. Two passes over the ids, one over N counts per part.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/core/context.hpp>
#include <gatefold/moe/plan.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Below this many pairs a second thread costs more than it counts.
inline constexpr index_t pairs_per_part = 8192;

inline constexpr std::size_t plan_scratch_bytes(int choices, int threads) {
    return static_cast<std::size_t>(threads) * static_cast<std::size_t>(choices) * sizeof(std::int32_t);
}

/// Builds the plan for `ids`; a pair with id -1, or with kept[pair] == 0 where `kept` is given, goes to no expert.
///
/// Ids must lie in [-1, choices). Rows past offsets[choices] are not written.
inline void build_plan(context<cpu>& ctx, const std::int32_t* ids, const std::uint8_t* kept, int choices,
                       const plan_view<cpu>& out, std::byte* scratch) {
    const index_t pairs = out.tokens * out.slots;
    const index_t most_parts = ceil_div(pairs, pairs_per_part);
    const int parts = most_parts < ctx.threads() ? static_cast<int>(most_parts < 1 ? 1 : most_parts) : ctx.threads();
    auto* starts = reinterpret_cast<std::int32_t*>(scratch);
    const auto first_pair = [&](int part) { return pairs * part / parts; };
    const auto expert_of = [&](index_t pair) { return kept && !kept[pair] ? -1 : ids[pair]; };

    ctx.parallel(parts, [&](int part) {
        std::int32_t* counts = starts + index_t{part} * choices;
        for (int e = 0; e < choices; ++e) counts[e] = 0;
        for (index_t pair = first_pair(part); pair < first_pair(part + 1); ++pair) {
            const std::int32_t e = expert_of(pair);
            if (e >= 0) ++counts[e];
        }
    });

    std::int32_t running = 0;
    for (int e = 0; e < choices; ++e) {
        out.offsets[e] = running;
        for (int part = 0; part < parts; ++part) {
            std::int32_t& slot = starts[index_t{part} * choices + e];
            const std::int32_t count = slot;
            slot = running;
            running += count;
        }
    }
    out.offsets[choices] = running;

    ctx.parallel(parts, [&](int part) {
        std::int32_t* next = starts + index_t{part} * choices;
        for (index_t pair = first_pair(part); pair < first_pair(part + 1); ++pair) {
            const std::int32_t e = expert_of(pair);
            const std::int32_t row = e < 0 ? -1 : next[e]++;
            out.place[pair] = row;
            if (row >= 0) out.rows[row] = static_cast<std::int32_t>(pair);
        }
    });
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
