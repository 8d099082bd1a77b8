// Routing by table: vocabulary ids to experts, fixed before training (Hash Layers) or before a model's first layers.
//
//     modulo_table, random_table, balanced_table ──> table[V,K] ── look_up(token_ids) ──> batch::chosen[T,K]
//
// A layer takes the ids with selection::given; its weights are constant (routers::hash) or learned from the logits
// (routers::deepseek_v4_hash).
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include <gatefold/core/error.hpp>
#include <gatefold/core/random.hpp>
#include <gatefold/core/view.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <int K>
void check_table(const char* function, const view<std::int32_t, dyn, K>& table, int experts) {
    require(experts >= K, function, "experts", counted("at least ", K), experts);
    require(table.size() == 0 || table.data() != nullptr, function, "table", "memory", "null");
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// table[v, s] = (v + s) mod experts.
///
/// Shapes:  table [V, K], K at most `experts`.
/// Throws:  argument_error for too few experts or missing memory.
template <int K>
void modulo_table(view<std::int32_t, dyn, K> table, int experts) {
    detail::check_table("modulo_table", table, experts);
    for (index_t v = 0; v < table.extent(0); ++v)
        for (int s = 0; s < K; ++s) table(v, s) = static_cast<std::int32_t>((v + s) % experts);
}

/// K distinct experts for every id, uniformly at random.
///
/// Shapes:  table [V, K], K at most `experts`.
/// Throws:  argument_error for too few experts or missing memory.
template <int K>
void random_table(view<std::int32_t, dyn, K> table, int experts, std::uint64_t seed) {
    detail::check_table("random_table", table, experts);
    const counter_rng draw{seed, 0, 0};
    for (index_t v = 0; v < table.extent(0); ++v)
        for (int s = 0; s < K; ++s) {
            // The n-th of those that are left, counted upwards.
            auto n = static_cast<int>(
                std::uint64_t{draw.bits(purpose::sampling, v, s)} * static_cast<std::uint64_t>(experts - s) >> 32);
            const auto taken = [&](std::int32_t e) {
                for (int j = 0; j < s; ++j)
                    if (table(v, j) == e) return true;
                return false;
            };
            std::int32_t e = 0;
            for (; taken(e) || n > 0; ++e) n -= taken(e) ? 0 : 1;
            table(v, s) = e;
        }
}

/// Experts of equal load for ids of the given frequencies: in descending frequency every id gets the expert with the
/// least load so far (ties: the lower id, the lower expert); with K above 1, its K least loaded ones.
///
/// Shapes:  table [V, K], frequencies [V], K at most `experts`.
/// Throws:  argument_error for extents that do not fit, too few experts or missing memory.
template <int K>
void balanced_table(view<std::int32_t, dyn, K> table, std::type_identity_t<view<const double, dyn>> frequencies,
                    int experts) {
    detail::check_table("balanced_table", table, experts);
    const index_t ids = table.extent(0);
    require(frequencies.extent(0) == ids, "balanced_table", "frequencies", ids, frequencies.extent(0));
    require(ids == 0 || frequencies.data() != nullptr, "balanced_table", "frequencies", "memory", "null");
    std::vector<index_t> order(static_cast<std::size_t>(ids)), other(order.size());
    for (std::size_t v = 0; v < order.size(); ++v) order[v] = static_cast<index_t>(v);
    // Merges runs of doubling length: stable, so that equal frequencies stay in the order of their ids.
    for (std::size_t run = 1; run < order.size(); run *= 2) {
        for (std::size_t first = 0; first < order.size(); first += 2 * run) {
            const std::size_t middle = first + run < order.size() ? first + run : order.size();
            const std::size_t end = middle + run < order.size() ? middle + run : order.size();
            std::size_t a = first, b = middle;
            for (std::size_t to = first; to < end; ++to)
                other[to] = b == end || (a < middle && frequencies[order[a]] >= frequencies[order[b]]) ? order[a++]
                                                                                                       : order[b++];
        }
        order.swap(other);
    }
    std::vector<double> load(static_cast<std::size_t>(experts));
    for (const index_t v : order)
        for (int s = 0; s < K; ++s) {
            std::int32_t best = -1;
            for (std::int32_t e = 0; e < experts; ++e) {
                bool taken = false;
                for (int j = 0; j < s; ++j) taken = taken || table(v, j) == e;
                if (!taken && (best < 0 || load[static_cast<std::size_t>(e)] < load[static_cast<std::size_t>(best)]))
                    best = e;
            }
            table(v, s) = best;
            load[static_cast<std::size_t>(best)] += frequencies[v];
        }
}

/// chosen[t] = table[token_ids[t]].
///
/// Shapes:  table [V, K], token_ids [T], chosen [T, K].
/// Throws:  argument_error for extents that do not fit, missing memory, or an id outside the table; nothing is written
///          then.
template <int K>
void look_up(std::type_identity_t<view<const std::int32_t, dyn, K>> table, view<const std::int32_t, dyn> token_ids,
             view<std::int32_t, dyn, K> chosen) {
    const index_t tokens = token_ids.extent(0);
    require(chosen.extent(0) == tokens, "look_up", "chosen", detail::counted("", tokens, " rows"), chosen.extent(0));
    require(tokens == 0 || (table.data() && token_ids.data() && chosen.data()), "look_up",
            "table, token_ids and chosen", "memory", "null");
    for (index_t t = 0; t < tokens; ++t)
        require(token_ids[t] >= 0 && token_ids[t] < table.extent(0), "look_up", "token_ids",
                detail::counted("ids from 0 to ", table.extent(0) - 1), token_ids[t]);
    for (index_t t = 0; t < tokens; ++t)
        for (int s = 0; s < K; ++s) chosen(t, s) = table(token_ids[t], s);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
