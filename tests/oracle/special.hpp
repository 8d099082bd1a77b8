// Routers that are not "ids and weights": Soft MoE, merged experts, BASE assignment (routing.md §9).
#pragma once

#include "layer.hpp"

namespace oracle {

// ---- Soft MoE (2308.00951) ------------------------------------------------------------------------------------------

/// D = softmax over tokens, C = softmax over slots of s·x̂φ̂; slots = Dᵀx; y = C·f(slots). Φ is [H, E·P].
struct soft_moe_result {
    values logits, dispatch, combine;  // [T, E·P]
    values slot_input, slot_output;    // [E·P, H]
    values y;                          // [T, H]
};

inline values unit_columns(const values& phi, natural rows, natural columns) {
    values out(phi.size());
    for (natural c = 0; c < columns; ++c) {
        double square = 0;
        for (natural r = 0; r < rows; ++r) square += phi[r * columns + c] * phi[r * columns + c];
        for (natural r = 0; r < rows; ++r)
            out[r * columns + c] = phi[r * columns + c] / std::max(std::sqrt(square), 1e-12);
    }
    return out;
}

inline soft_moe_result soft_moe_forward(const layer& l, const parameters& p, const values& phi, double scale,
                                        natural slots_per_expert, const values& x, natural tokens) {
    const natural h = l.hidden, slots = l.experts * slots_per_expert;
    router unit;
    unit.input = input_kind::unit_norm;
    const values phi_unit = unit_columns(phi, h, slots);
    soft_moe_result r;
    r.logits.assign(tokens * slots, 0.0);
    for (natural t = 0; t < tokens; ++t) {
        const values x_unit = transform_input(unit, p, row(x, t, h));
        multiply_transposed(phi_unit.data(), h, slots, x_unit.data(), r.logits.data() + t * slots);
        for (natural s = 0; s < slots; ++s) r.logits[t * slots + s] *= scale;
    }
    r.dispatch = softmax_over_tokens(r.logits, tokens, slots, tokens);
    r.combine.resize(tokens * slots);
    for (natural t = 0; t < tokens; ++t) set_row(r.combine, t, softmax(row(r.logits, t, slots)));
    r.slot_input.assign(slots * h, 0.0);
    r.slot_output.resize(slots * h);
    for (natural s = 0; s < slots; ++s) {
        for (natural t = 0; t < tokens; ++t)
            add_scaled(r.slot_input.data() + s * h, r.dispatch[t * slots + s], x.data() + t * h, h);
        set_row(r.slot_output, s, expert_forward(l, p, s / slots_per_expert, r.slot_input.data() + s * h));
    }
    r.y.assign(tokens * h, 0.0);
    for (natural t = 0; t < tokens; ++t)
        multiply_transposed(r.slot_output.data(), slots, h, r.combine.data() + t * slots, r.y.data() + t * h);
    return r;
}

// ---- merged experts (SMEAR 2306.03745, Lory) ------------------------------------------------------------------------

/// One FFN whose parameters are the softmax-weighted mean of the experts' parameters.
inline values merged_forward(const layer& l, const parameters& p, const values& mix, const double* x) {
    layer one = l;
    one.experts = 1;
    parameters merged;
    for (auto member : {&parameters::gate_up, &parameters::gate_up_bias, &parameters::down, &parameters::down_bias}) {
        const natural size = (p.*member).size() / l.experts;
        (merged.*member).assign(size, 0.0);
        for (natural e = 0; e < l.experts; ++e)
            add_scaled((merged.*member).data(), mix[e], (p.*member).data() + e * size, size);
    }
    return expert_forward(one, merged, 0, x);
}

// ---- BASE (2103.16716) ----------------------------------------------------------------------------------------------

/// One augmenting step of the balanced assignment: the best alternating path of moves that ends in an expert with room.
/// gain[e] is the best total change when a token newly arrives in e; longest paths by Bellman–Ford.
struct assignment_search {
    values best;
    std::vector<int> moved_token, from_expert;
};

inline assignment_search search_moves(const values& a, natural tokens, natural experts, const ints& owner,
                                      natural token) {
    assignment_search s{row(a, token, experts), std::vector<int>(experts, to_int(token)),
                        std::vector<int>(experts, -1)};
    for (natural round = 0; round < experts; ++round)
        for (natural t = 0; t < tokens; ++t) {
            if (owner[t] < 0) continue;
            const natural from = to_index(owner[t]);
            for (natural e = 0; e < experts; ++e) {
                const double total = s.best[from] - a[t * experts + from] + a[t * experts + e];
                if (total > s.best[e] + 1e-12) {
                    s.best[e] = total;
                    s.moved_token[e] = to_int(t);
                    s.from_expert[e] = to_int(from);
                }
            }
        }
    return s;
}

/// Maximum of Σ affinity with exactly T/E tokens per expert (what an auction converges to); id per token.
inline ints balanced_assignment(const values& affinity, natural tokens, natural experts) {
    check(tokens % experts == 0, "oracle: balanced assignment needs E | T");
    ints owner(tokens, -1);
    std::vector<natural> load(experts, 0);
    for (natural t = 0; t < tokens; ++t) {
        const assignment_search s = search_moves(affinity, tokens, experts, owner, t);
        int end = -1;
        for (natural e = 0; e < experts; ++e)
            if (load[e] < tokens / experts && (end < 0 || s.best[e] > s.best[to_index(end)])) end = to_int(e);
        ++load[to_index(end)];
        for (int e = end; e >= 0; e = s.from_expert[to_index(e)]) owner[to_index(s.moved_token[to_index(e)])] = e;
    }
    return owner;
}

// ---- hash tables (Roller 2106.04426) --------------------------------------------------------------------------------

/// Ids [T, k] from a table [V, k].
inline ints table_ids(const ints& table, natural k, const ints& token_ids) {
    ints out;
    for (int id : token_ids)
        for (natural s = 0; s < k; ++s) out.push_back(table[to_index(id) * k + s]);
    return out;
}

}  // namespace oracle
