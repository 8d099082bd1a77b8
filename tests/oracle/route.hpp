// The router: choice, weights, capacity; and the gradient of the weights back to the logits.
//
//     logits ── choose ──> chosen ── weigh ──> base ── renormalise, second policy, capacity ──> ids, weights
#pragma once

#include "capacity.hpp"
#include "expert.hpp"
#include "logits.hpp"

namespace oracle {

// ---- choice ---------------------------------------------------------------------------------------------------------

/// The chosen ids of token t in key order; fewer than S where the choice is variable.
inline ints choose_token(const layer& l, const batch& b, const routing& r, natural t) {
    const router& c = l.router;
    const natural e = r.choices;
    values keys = row(r.keys, t, e);
    const values logits = row(r.logits, t, e), scores = row(r.scores, t, e);
    if (c.select == select_kind::top_p) return top_p(scores, c.top_p, c.top_k == 0 ? e : c.top_k);
    if (c.select == select_kind::positive) return positive(scores);
    if (c.select == select_kind::all) return top_k(logits, e);
    if (c.second == second_kind::sampling) return sampled_second(keys, row(b.key_noise, t, e), c.top_k);
    if (!b.key_noise.empty())
        for (natural i = 0; i < e; ++i) keys[i] += b.key_noise[t * e + i];
    return c.groups > 1 ? group_limited_top_k(c, keys) : top_k(keys, c.top_k);
}

/// SparseMixer-v2: two sequential picks; fills mixer, factor and chosen of token t (routing.md §6).
inline void sparse_mixer_token(const layer& l, const batch& b, routing& r, natural t) {
    const natural e = r.choices;
    const values z = without_nan(row(r.logits, t, e));
    int excluded = -1;
    for (natural s = 0; s < r.slots; ++s) {
        const natural pick = t * r.slots + s;
        const values q = sparse_mixer_probabilities(z, l.router.mixer_epsilon, excluded);
        const values gumbel = b.training && !b.key_noise.empty() ? row(b.key_noise, pick, e) : values{};
        const int choice = b.chosen.empty() ? sparse_mixer_choice(z, q, gumbel, excluded) : b.chosen[pick];
        r.chosen[pick] = choice;
        if (b.training && !b.uniform.empty()) r.factor[pick] = sparse_mixer_factor(q, choice, b.uniform[pick]);
        set_row(r.mixer, pick, q);
        excluded = choice;
    }
}

/// Expert choice: each expert takes the C tokens of a group with the largest score; slots in ascending expert id.
inline void expert_choice(const layer& l, routing& r) {
    const natural e = r.choices, group = l.router.capacity.group == 0 ? r.tokens : l.router.capacity.group;
    std::vector<natural> used(r.tokens, 0);
    for (natural first = 0; first < r.tokens; first += group)
        for (natural i = 0; i < e; ++i) {
            const natural n = std::min(group, r.tokens - first);
            values column(n);
            for (natural t = 0; t < n; ++t) column[t] = r.scores[(first + t) * e + i];
            r.capacity = std::min(n, expert_choice_capacity(l.router.choice_capacity, n, e));
            for (int t : top_k(column, r.capacity)) {
                const natural token = first + to_index(t);
                r.chosen[token * r.slots + used[token]++] = to_int(i);
            }
        }
}

/// Softmax over the tokens of a group for every expert (mesh expert choice).
inline values softmax_over_tokens(const values& logits, natural tokens, natural experts, natural group) {
    values p(logits.size());
    for (natural first = 0; first < tokens; first += group)
        for (natural i = 0; i < experts; ++i) {
            const natural n = std::min(group, tokens - first);
            values column(n);
            for (natural t = 0; t < n; ++t) column[t] = logits[(first + t) * experts + i];
            column = softmax(column);
            for (natural t = 0; t < n; ++t) p[(first + t) * experts + i] = column[t];
        }
    return p;
}

inline void compute_scores_and_keys(const layer& l, const parameters& p, const batch& b, routing& r) {
    const natural e = r.choices;
    r.scores.resize(r.tokens * e);
    r.keys.resize(r.tokens * e);
    for (natural t = 0; t < r.tokens; ++t) {
        const values z = row(r.logits, t, e), g = scores_of(l.router.score, z);
        r.degenerate[t] = is_degenerate(z) ? 1 : 0;
        r.degenerate_rows += to_index(r.degenerate[t]);
        set_row(r.scores, t, g);
        set_row(r.keys, t, selection_keys(l, p, z, g));
    }
    if (l.router.select == select_kind::sinkhorn && b.training) r.keys = sinkhorn(r.logits, r.tokens, e);
    if (l.router.choice_over_tokens)
        r.scores =
            softmax_over_tokens(r.logits, r.tokens, e, l.router.capacity.group ? l.router.capacity.group : r.tokens);
}

inline void choose(const layer& l, const batch& b, routing& r) {
    if (l.router.select == select_kind::expert_choice && b.chosen.empty()) return expert_choice(l, r);
    for (natural t = 0; t < r.tokens; ++t) {
        if (l.router.select == select_kind::sparse_mixer && !r.degenerate[t]) {
            sparse_mixer_token(l, b, r, t);
            continue;
        }
        ints ids;
        if (!b.chosen.empty())
            ids.assign(b.chosen.begin() + static_cast<std::ptrdiff_t>(t * r.slots),
                       b.chosen.begin() + static_cast<std::ptrdiff_t>((t + 1) * r.slots));
        else if (r.degenerate[t] && !l.unbounded())
            ids = top_k(values(r.choices, 0.0), l.router.top_k);  // the k lowest experts (routing.md §3)
        else
            ids = choose_token(l, b, r, t);
        for (natural s = 0; s < ids.size(); ++s) r.chosen[t * r.slots + s] = ids[s];
    }
}

// ---- weights --------------------------------------------------------------------------------------------------------

/// Slots of token t that hold an id in `ids`.
inline std::vector<natural> filled(const routing& r, const ints& ids, natural t) {
    std::vector<natural> slots;
    for (natural s = 0; s < r.slots; ++s)
        if (ids[t * r.slots + s] >= 0) slots.push_back(t * r.slots + s);
    return slots;
}

/// Unbiased scores of the chosen; softmax over the chosen logits where the score says so. Zero experts weigh 0.
inline void base_weights(const layer& l, routing& r, natural t) {
    const std::vector<natural> pairs = filled(r, r.chosen, t);
    values z;
    for (natural i : pairs) z.push_back(without_nan(r.logits[t * r.choices + to_index(r.chosen[i])]));
    const values selected = softmax(z);
    for (natural j = 0; j < pairs.size(); ++j) {
        const natural i = pairs[j], e = to_index(r.chosen[i]);
        if (r.degenerate[t])
            r.base[i] = 1 / to_double(pairs.size());
        else if (l.router.select == select_kind::sparse_mixer)
            r.base[i] = r.mixer[i * r.choices + e];
        else if (l.router.score == score_kind::softmax_selected)
            r.base[i] = selected[j];
        else
            r.base[i] = r.scores[t * r.choices + e];
        if (kind_of(l, e) == compute_kind::zero) r.base[i] = 0;
    }
}

/// D of w = v/D over the given weights (routing.md §1, renormalise).
inline double renormaliser(const router& c, const values& v) {
    double total = 0;
    for (double a : v) total += c.renormalise == renormalise_kind::norm ? std::pow(std::fabs(a), c.norm_p) : a;
    switch (c.renormalise) {
        case renormalise_kind::none:
            return 1;
        case renormalise_kind::sum:
            return total;
        case renormalise_kind::sum_plus_epsilon:
            return total + c.epsilon;
        case renormalise_kind::clamped_sum:
            return std::max(total, c.epsilon);
        case renormalise_kind::norm:
            return std::pow(total, 1 / c.norm_p);
    }
    return 1;
}

/// dD/dv of one weight.
inline double renormaliser_slope(const router& c, const values& v, double vi) {
    const double d = renormaliser(c, v);
    switch (c.renormalise) {
        case renormalise_kind::none:
            return 0;
        case renormalise_kind::clamped_sum:
            return sum(v) >= c.epsilon ? 1 : 0;
        case renormalise_kind::norm:
            return std::pow(std::fabs(vi), c.norm_p - 1) * std::pow(d, 1 - c.norm_p) * sign(vi);
        default:
            return 1;
    }
}

/// Scaling that multiplies v/D: constant scale, per-expert scale, mesh ÷ number of experts.
inline double weight_factor(const layer& l, const parameters& p, const routing& r, natural i) {
    double f = l.router.scale_after_combine ? 1.0 : l.router.scale;
    if (!p.expert_scale.empty()) f *= p.expert_scale[to_index(r.chosen[i])];
    if (l.router.choice_over_tokens) f /= to_double(filled(r, r.chosen, i / r.slots).size());
    return f;
}

/// The slots over which token t's weights are normalised: all chosen, or the survivors (renormalise_after_drop).
inline std::vector<natural> normalising_slots(const layer& l, const routing& r, natural t) {
    return filled(r, l.router.renormalise_after_drop ? r.ids : r.chosen, t);
}

inline values base_of(const routing& r, const std::vector<natural>& pairs) {
    values v;
    for (natural i : pairs) v.push_back(r.base[i]);
    return v;
}

/// w = f·v/D of token t, times c of the SparseMixer. Infinite scores share equally.
inline void normalise_weights(const layer& l, const parameters& p, routing& r, natural t) {
    const std::vector<natural> pairs = normalising_slots(l, r, t);
    if (l.router.renormalise != renormalise_kind::none && maximum(base_of(r, pairs)) == infinity)
        for (natural i : pairs) r.base[i] = std::isinf(r.base[i]) ? 1.0 : 0.0;
    const double d = r.degenerate[t] ? 1.0 : renormaliser(l.router, base_of(r, pairs));
    for (natural i : pairs) r.weights[i] = weight_factor(l, p, r, i) * r.factor[i] * r.base[i] / d;
}

// ---- second expert and capacity -------------------------------------------------------------------------------------

inline bool keep_second(const router& c, double w2, double u) {
    switch (c.second) {
        case second_kind::none:
            return false;
        case second_kind::threshold:
            return w2 > c.threshold;
        case second_kind::random:
            return u < w2 / c.threshold;
        case second_kind::random_twice:
            return 2 * w2 > u;
        default:
            return true;
    }
}

/// mesh acts on the normalised weight, NLLB's 2·p2 > u on the probability itself (routing.md §7).
inline void apply_second_policy(const layer& l, const batch& b, routing& r) {
    const bool acts = l.router.second != second_kind::all && l.router.second != second_kind::sampling;
    if (!acts || r.slots < 2) return;
    for (natural t = 0; t < r.tokens; ++t) {
        const natural i = t * r.slots + 1;
        const bool raw = l.router.second == second_kind::random_twice || l.router.renormalise_after_drop;
        const double u = b.uniform.empty() ? 0.0 : b.uniform[t];
        if (r.ids[i] >= 0 && !keep_second(l.router, raw ? r.base[i] : r.weights[i], u)) r.ids[i] = -1;
    }
}

/// Tokens [first, first + n) as the pairs of one capacity group.
inline pairs group_pairs(const layer& l, const routing& r, natural first, natural n) {
    pairs g{n, r.slots, r.choices, {}, {}, values(n, 0.0)};
    for (natural t = first; t < first + n; ++t) {
        const values scores = row(r.scores, t, r.choices);
        for (natural s = 0; s < r.slots; ++s) {
            const natural i = t * r.slots + s;
            g.ids.push_back(r.ids[i]);
            g.weights.push_back(r.ids[i] < 0 ? -infinity
                                             : (l.router.renormalise_after_drop ? r.base[i] : r.weights[i]));
            if (l.router.capacity.priority == priority_kind::batch_sum && r.chosen[i] >= 0)
                g.importance[t - first] += scores[to_index(r.chosen[i])];
        }
        if (l.router.capacity.priority != priority_kind::batch_sum) g.importance[t - first] = maximum(scores);
    }
    return g;
}

inline natural largest_load(const pairs& g) {
    std::vector<natural> load(g.experts, 0);
    for (int id : g.ids)
        if (id >= 0) ++load[to_index(id)];
    return *std::max_element(load.begin(), load.end());
}

inline void apply_capacity(const layer& l, const batch& b, routing& r) {
    const capacity& c = l.router.capacity;
    if (c.kind == capacity_kind::none || r.tokens == 0) return;
    const natural group = c.group == 0 ? r.tokens : c.group;
    for (natural first = 0; first < r.tokens; first += group) {
        const natural n = std::min(group, r.tokens - first);
        const pairs g = group_pairs(l, r, first, n);
        r.capacity = capacity_of(c, n, r.choices, l.router.top_k, b.training, largest_load(g));
        const std::vector<bool> keep = keep_pairs(g, r.capacity, c);
        for (natural i = 0; i < keep.size(); ++i)
            if (!keep[i]) r.ids[first * r.slots + i] = -1;
    }
}

// ---- the router as a whole ------------------------------------------------------------------------------------------

/// Everything from `source` [T, H] to ids and weights.
inline routing route(const layer& l, const parameters& p, const batch& b, const values& source) {
    routing r;
    r.tokens = b.tokens;
    r.choices = l.choices();
    r.slots = l.slots();
    r.source = source;
    const natural pairs = r.tokens * r.slots;
    r.chosen.assign(pairs, -1);
    r.factor.assign(pairs, 1.0);
    r.base.assign(pairs, 0.0);
    r.weights.assign(pairs, 0.0);
    r.degenerate.assign(r.tokens, 0);
    if (l.router.select == select_kind::sparse_mixer) r.mixer.assign(pairs * r.choices, 0.0);
    compute_logits(l, p, b, r);
    compute_scores_and_keys(l, p, b, r);
    choose(l, b, r);
    r.ids = r.chosen;
    for (natural t = 0; t < r.tokens; ++t) base_weights(l, r, t);
    if (!l.router.renormalise_after_drop)
        for (natural t = 0; t < r.tokens; ++t) normalise_weights(l, p, r, t);
    apply_second_policy(l, b, r);
    apply_capacity(l, b, r);
    if (l.router.renormalise_after_drop)
        for (natural t = 0; t < r.tokens; ++t) normalise_weights(l, p, r, t);
    r.kept.assign(pairs, 0);
    for (natural i = 0; i < pairs; ++i) {
        r.kept[i] = r.ids[i] >= 0 ? 1 : 0;
        if (r.ids[i] < 0) r.weights[i] = 0;
    }
    return r;
}

// ---- how sure a choice is -------------------------------------------------------------------------------------------

/// Gap between the n-th and the next of `keys` in descending order; infinite if all are taken.
inline double gap_after(values keys, natural n) {
    keys = without_nan(keys);
    std::sort(keys.rbegin(), keys.rend());
    return n == 0 || n >= keys.size() || std::isinf(keys[n - 1]) ? infinity : keys[n - 1] - keys[n];
}

/// Per token the smallest gap of its top-k (and group) choice in terms of the keys: where it is tiny, compare against
/// the oracle with batch::chosen. Other kinds of selection are not judged (infinite).
inline values choice_margins(const layer& l, const routing& r) {
    const router& c = l.router;
    values margins(r.tokens, infinity);
    const bool by_key = c.select == select_kind::top_k || c.select == select_kind::sinkhorn;
    for (natural t = 0; t < r.tokens && by_key; ++t) {
        values keys = row(r.keys, t, r.choices);
        if (c.groups > 1) {
            const values groups = group_scores(c, keys);
            margins[t] = gap_after(groups, c.top_groups);
            const ints best = top_k(groups, c.top_groups);
            for (natural e = 0; e < r.choices; ++e)
                if (std::count(best.begin(), best.end(), to_int(e / (r.choices / c.groups))) == 0)
                    keys[e] = c.mask_zero ? 0.0 : -infinity;
        }
        margins[t] = std::min(margins[t], gap_after(keys, c.top_k));
    }
    return margins;
}

// ---- weights backward (training.md §4, §6) --------------------------------------------------------------------------

/// dv of token t from dw: w = f·v/D(v). The SparseMixer's c is left out (training.md §6).
inline values weights_backward(const layer& l, const parameters& p, const routing& r, natural t, const values& dw,
                               parameters& grad) {
    const std::vector<natural> pairs = normalising_slots(l, r, t);
    const values v = base_of(r, pairs);
    const double d = renormaliser(l.router, v);
    double along = 0;  // Σ f dw v / D²
    for (natural i : pairs) along += weight_factor(l, p, r, i) * dw[i] * r.base[i] / (d * d);
    values dv(pairs.size(), 0.0);
    for (natural j = 0; j < pairs.size(); ++j) {
        const natural i = pairs[j], e = to_index(r.chosen[i]);
        dv[j] = weight_factor(l, p, r, i) * dw[i] / d - along * renormaliser_slope(l.router, v, v[j]);
        if (!p.expert_scale.empty())
            grad.expert_scale[e] += dw[i] * weight_factor(l, p, r, i) / p.expert_scale[e] * r.base[i] / d;
        if (kind_of(l, e) == compute_kind::zero) dv[j] = 0;
    }
    return dv;
}

/// d scale_e of a degenerate row, whose weight 1/k is a constant.
inline void degenerate_backward(const layer& l, const parameters& p, const routing& r, natural t, const values& dw,
                                parameters& grad) {
    for (natural i : filled(r, r.ids, t)) {
        const natural e = to_index(r.chosen[i]);
        if (!p.expert_scale.empty())
            grad.expert_scale[e] += dw[i] * weight_factor(l, p, r, i) / p.expert_scale[e] * r.base[i];
    }
}

/// SparseMixer: dz = −q·G' for all kept, dz[choice] += G', G' = G·q_choice without c (training.md §6).
inline void sparse_mixer_backward(const routing& r, natural i, double g, values& dz) {
    const natural choice = to_index(r.chosen[i]);
    const double scaled = g * r.base[i];
    for (natural e = 0; e < r.choices; ++e) dz[e] -= r.mixer[i * r.choices + e] * scaled;
    dz[choice] += scaled;
}

/// Gradient of the final logits of token t from dw of its slots.
inline values token_logits_backward(const layer& l, const parameters& p, const routing& r, natural t, const values& dw,
                                    const values& d_scores, parameters& grad) {
    const natural e = r.choices;
    values dz(e, 0.0), dg = d_scores.empty() ? values(e, 0.0) : row(d_scores, t, e);
    if (r.degenerate[t]) {
        degenerate_backward(l, p, r, t, dw, grad);
        return dz;
    }
    const std::vector<natural> pairs = normalising_slots(l, r, t);
    const values dv = weights_backward(l, p, r, t, dw, grad);
    if (l.router.select == select_kind::sparse_mixer) {
        for (natural j = 0; j < pairs.size(); ++j) sparse_mixer_backward(r, pairs[j], dv[j], dz);
        return dz;
    }
    if (l.router.score == score_kind::softmax_selected) {
        const std::vector<natural> all = filled(r, r.chosen, t);
        values v = base_of(r, all), d_selected(all.size(), 0.0);
        for (natural j = 0; j < pairs.size(); ++j)
            for (natural m = 0; m < all.size(); ++m)
                if (all[m] == pairs[j]) d_selected[m] = dv[j];
        d_selected = softmax_backward(v, d_selected);
        for (natural m = 0; m < all.size(); ++m) dz[to_index(r.chosen[all[m]])] += d_selected[m];
        return dz;
    }
    for (natural j = 0; j < pairs.size(); ++j) dg[to_index(r.chosen[pairs[j]])] += dv[j];
    if (l.router.choice_over_tokens) return dg;  // finished by columns in route_backward
    return scores_backward(l.router.score, row(r.logits, t, e), dg);
}

/// Column softmax of the mesh expert choice, from dg to dz.
inline values softmax_over_tokens_backward(const routing& r, natural group, const values& dg) {
    values dz(dg.size());
    for (natural first = 0; first < r.tokens; first += group)
        for (natural i = 0; i < r.choices; ++i) {
            const natural n = std::min(group, r.tokens - first);
            values p(n), dp(n);
            for (natural t = 0; t < n; ++t) p[t] = r.scores[(first + t) * r.choices + i];
            for (natural t = 0; t < n; ++t) dp[t] = dg[(first + t) * r.choices + i];
            dp = softmax_backward(p, dp);
            for (natural t = 0; t < n; ++t) dz[(first + t) * r.choices + i] = dp[t];
        }
    return dz;
}

/// Gradient of the final logits [T, E] from dw [T, S] and, for dense estimators, d_scores [T, E].
inline values route_backward(const layer& l, const parameters& p, const routing& r, const values& dw,
                             const values& d_scores, parameters& grad) {
    values d_logits(r.tokens * r.choices, 0.0);
    for (natural t = 0; t < r.tokens; ++t) set_row(d_logits, t, token_logits_backward(l, p, r, t, dw, d_scores, grad));
    if (l.router.choice_over_tokens)
        return softmax_over_tokens_backward(r, l.router.capacity.group ? l.router.capacity.group : r.tokens, d_logits);
    return d_logits;
}

}  // namespace oracle
