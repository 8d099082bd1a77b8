// Capacity, priority and overflow (routing.md §8).
#pragma once

#include <algorithm>
#include <numeric>

#include "config.hpp"

namespace oracle {

inline double ceil_div(natural a, natural b) { return std::ceil(to_double(a) / to_double(b)); }

/// round half to even
inline double round_even(double v) {
    const double down = std::floor(v), part = v - down;
    if (part != 0.5) return std::floor(v + 0.5);
    return std::fmod(down, 2) == 0 ? down : down + 1;
}

/// Tutel: k·⌊cf·⌈T/E⌉⌋; cf ≤ 0 takes the largest load, capped by |cf| if negative; then rounded up to the alignment.
inline double tutel_capacity(const capacity& c, natural tokens, natural experts, natural k, natural largest_load) {
    const double per = ceil_div(tokens, experts), kd = to_double(k);
    double limit = c.factor > 0 ? kd * std::floor(c.factor * per) : to_double(largest_load);
    if (c.factor < 0) limit = std::min(limit, kd * std::floor(-c.factor * per));
    return std::ceil(limit / to_double(c.alignment)) * to_double(c.alignment);
}

/// C for a group of `tokens` tokens. `largest_load` is the largest number of pairs of one expert (Tutel only).
inline natural capacity_of(const capacity& c, natural tokens, natural experts, natural k, bool training,
                           natural largest_load) {
    const double t = to_double(tokens), e = to_double(experts), kd = to_double(k);
    double limit = 0;
    switch (c.kind) {
        case capacity_kind::none:
            return tokens * k;
        case capacity_kind::fixed:
            return c.fixed;
        case capacity_kind::mesh:
            limit = std::max(4.0, std::min(t, std::floor(t * c.factor / e)));
            break;
        case capacity_kind::flaxformer:
            limit = std::max(4.0, round_even(c.factor * t / e));
            break;
        case capacity_kind::megatron:
            limit = std::max(std::ceil(t * kd / e * c.factor), to_double(c.minimum));
            break;
        case capacity_kind::tutel:
            limit = tutel_capacity(c, tokens, experts, k, largest_load);
            break;
        case capacity_kind::nllb:
            limit = !training && c.eval_fraction > 0 ? std::ceil(c.eval_fraction * t) : 2 * ceil_div(tokens, experts);
            break;
        case capacity_kind::hunyuan:
            limit = std::max(kd, std::floor(kd * t / e));
            break;
    }
    return static_cast<natural>(limit);
}

/// Expert choice: ⌊T·c/E⌋ tokens per expert.
inline natural expert_choice_capacity(double c, natural tokens, natural experts) {
    return static_cast<natural>(std::floor(to_double(tokens) * c / to_double(experts)));
}

/// The pairs (t, s) of one group: ids[t·S+s] (−1 absent), weights for the probability rule, importance per token.
struct pairs {
    natural tokens = 0, slots = 0, experts = 0;
    ints ids;
    values weights, importance;
};

/// Rule 1: slot-major arrival in the given token order.
inline std::vector<bool> keep_by_arrival(const pairs& p, natural limit, offset_kind offset,
                                         const std::vector<natural>& token_order) {
    std::vector<bool> kept(p.ids.size(), false);
    std::vector<natural> base(p.experts, 0);  // where the next slot's positions start
    for (natural s = 0; s < p.slots; ++s) {
        std::vector<natural> arrived(p.experts, 0), accepted(p.experts, 0);
        for (natural t : token_order) {
            const int id = p.ids[t * p.slots + s];
            if (id < 0) continue;
            const natural e = to_index(id), position = base[e] + arrived[e]++;
            kept[t * p.slots + s] = position < limit;
            accepted[e] += position < limit ? 1 : 0;
        }
        for (natural e = 0; e < p.experts; ++e) base[e] += offset == offset_kind::kept ? accepted[e] : arrived[e];
    }
    return kept;
}

/// Rules 2 and 4: the first C pairs of each expert in the given order.
inline std::vector<bool> keep_first(const pairs& p, natural limit, const std::vector<natural>& pair_order) {
    std::vector<bool> kept(p.ids.size(), false);
    std::vector<natural> load(p.experts, 0);
    for (natural i : pair_order)
        if (p.ids[i] >= 0) kept[i] = load[to_index(p.ids[i])]++ < limit;
    return kept;
}

/// Indices by descending value, ties by lower index.
inline std::vector<natural> descending(const values& v) {
    std::vector<natural> order(v.size());
    std::iota(order.begin(), order.end(), natural{0});
    std::stable_sort(order.begin(), order.end(), [&](natural a, natural b) { return v[a] > v[b]; });
    return order;
}

inline std::vector<bool> keep_pairs(const pairs& p, natural limit, const capacity& c) {
    std::vector<natural> order(c.priority == priority_kind::position ? p.ids.size() : p.tokens);
    std::iota(order.begin(), order.end(), natural{0});
    switch (c.priority) {
        case priority_kind::arrival:
            return keep_by_arrival(p, limit, c.offset, order);
        case priority_kind::probability:
            return keep_first(p, limit, descending(p.weights));
        case priority_kind::position:
            return keep_first(p, limit, order);
        default:
            return keep_by_arrival(p, limit, c.offset, descending(p.importance));
    }
}

}  // namespace oracle
