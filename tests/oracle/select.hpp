// Which experts a token takes: keys, top-k contract, groups, SparseMixer, Sinkhorn (routing.md §3, §4, §6, §9).
#pragma once

#include <algorithm>
#include <numeric>

#include "config.hpp"

namespace oracle {

// ---- top-k contract (routing.md §3) ---------------------------------------------------------------------------------

inline double without_nan(double v) { return std::isnan(v) ? -infinity : v; }

inline values without_nan(values v) {
    for (double& a : v) a = without_nan(a);
    return v;
}

/// Candidates in descending order of key; ties by lower index. NaN is −inf.
inline std::vector<natural> order_by_key(const values& keys, std::vector<natural> candidates) {
    const values clean = without_nan(keys);
    std::stable_sort(candidates.begin(), candidates.end(), [&](natural a, natural b) { return clean[a] > clean[b]; });
    return candidates;
}

inline std::vector<natural> first_indices(natural n) {
    std::vector<natural> all(n);
    std::iota(all.begin(), all.end(), natural{0});
    return all;
}

/// The k best of the candidates.
inline ints top_k(const values& keys, const std::vector<natural>& candidates, natural k) {
    check(k <= candidates.size(), "oracle: k exceeds the number of candidates");
    ints ids;
    for (natural e : order_by_key(keys, candidates))
        if (ids.size() < k) ids.push_back(to_int(e));
    return ids;
}

inline ints top_k(const values& keys, natural k) { return top_k(keys, first_indices(keys.size()), k); }

/// A row without one finite or +inf logit.
inline bool is_degenerate(const values& logits) { return maximum(without_nan(logits)) == -infinity; }

// ---- groups (routing.md §4) -----------------------------------------------------------------------------------------

inline natural group_terms(const router& r) {
    switch (r.group_score) {
        case group_score_kind::maximum:
            return 1;
        case group_score_kind::top2_sum:
            return 2;
        default:
            return std::max<natural>(1, r.top_k / r.top_groups);
    }
}

/// Sum of the largest keys of each group: one (V2), two (V3) or ⌊k/top_groups⌋ (Megatron).
inline values group_scores(const router& r, const values& keys) {
    const natural n = keys.size() / r.groups, terms = std::min(n, group_terms(r));
    values scores(r.groups, 0.0);
    for (natural q = 0; q < r.groups; ++q) {
        values members(n);
        for (natural i = 0; i < n; ++i) members[i] = without_nan(keys[q * n + i]);
        std::sort(members.rbegin(), members.rend());
        for (natural i = 0; i < terms; ++i) scores[q] += members[i];
    }
    return scores;
}

/// Top-k inside the best groups; masked experts are out (−inf) or stay with key 0.0 (mask_zero).
inline ints group_limited_top_k(const router& r, const values& keys) {
    check(keys.size() % r.groups == 0, "oracle: groups must divide the experts");
    const natural n = keys.size() / r.groups;
    std::vector<bool> kept(r.groups, false);
    for (int q : top_k(group_scores(r, keys), r.top_groups)) kept[to_index(q)] = true;
    values masked = without_nan(keys);
    std::vector<natural> candidates;
    for (natural e = 0; e < keys.size(); ++e) {
        if (!kept[e / n]) masked[e] = r.mask_zero ? 0.0 : -infinity;
        if (kept[e / n] || r.mask_zero) candidates.push_back(e);
    }
    return top_k(masked, candidates, r.top_k);
}

// ---- scores (routing.md §1) -----------------------------------------------------------------------------------------

inline double score_one(score_kind kind, double z) {
    switch (kind) {
        case score_kind::sigmoid:
            return sigmoid(z);
        case score_kind::sqrt_softplus:
            return std::sqrt(softplus(z));
        case score_kind::relu:
            return std::max(z, 0.0);
        case score_kind::identity:
            return z;
        default:
            return 1.0;
    }
}

inline bool is_softmax(score_kind kind) { return kind == score_kind::softmax || kind == score_kind::softmax_selected; }

/// Scores of all experts; softmax_selected reports the softmax over all, of which it is the renormalised part.
inline values scores_of(score_kind kind, const values& logits) {
    const values z = without_nan(logits);
    if (is_softmax(kind)) return softmax(z);
    values g(z.size());
    for (natural i = 0; i < z.size(); ++i) g[i] = score_one(kind, z[i]);
    return g;
}

/// dg/dz of the scores of one argument (training.md §4).
inline double score_slope(score_kind kind, double z) {
    const double s = sigmoid(z), q = std::sqrt(softplus(z));
    switch (kind) {
        case score_kind::sigmoid:
            return s * (1 - s);
        case score_kind::sqrt_softplus:
            return q > 0 ? s / (2 * q) : 0.0;
        case score_kind::relu:
            return z > 0 ? 1.0 : 0.0;
        case score_kind::identity:
            return 1.0;
        default:
            return 0.0;
    }
}

inline values scores_backward(score_kind kind, const values& logits, const values& dg) {
    const values z = without_nan(logits);
    if (is_softmax(kind)) return softmax_backward(softmax(z), dg);
    values dz(z.size(), 0.0);
    for (natural i = 0; i < z.size(); ++i)
        dz[i] = dg[i] == 0 || std::isinf(z[i]) ? 0.0 : dg[i] * score_slope(kind, z[i]);
    return dz;
}

// ---- selection keys (routing.md §3) ---------------------------------------------------------------------------------

/// The key is the logit unless something else than its order matters: a bias, a sum over a group, a mask of 0.0.
inline bool key_is_score(const layer& l, const parameters& p) {
    const router& r = l.router;
    if (r.key != key_kind::automatic) return r.key == key_kind::score;
    if (r.score == score_kind::softmax_selected || r.score == score_kind::identity || r.score == score_kind::one)
        return false;
    return !p.selection_bias.empty() || r.mask_zero ||
           (r.groups > 1 && r.group_score != group_score_kind::maximum && group_terms(r) > 1);
}

inline values selection_keys(const layer& l, const parameters& p, const values& logits, const values& scores) {
    values keys = key_is_score(l, p) ? scores : logits;
    for (natural e = 0; e < keys.size(); ++e)
        if (!p.selection_bias.empty()) keys[e] += p.selection_bias[e];
    // A NaN logit is a NaN key whatever its score was made of.
    for (natural e = 0; e < keys.size(); ++e)
        if (std::isnan(logits[e])) keys[e] = -infinity;
    return keys;
}

/// Smallest prefix of descending p with cumulative ≥ top_p, at most `cap` (routing.md §9, top-p).
inline ints top_p(const values& p, double threshold, natural cap) {
    ints ids;
    double cumulative = 0;
    for (natural e : order_by_key(p, first_indices(p.size()))) {
        if (cumulative >= threshold || ids.size() == cap) break;
        ids.push_back(to_int(e));
        cumulative += p[e];
    }
    return ids;
}

/// All experts with a positive score, best first (ReMoE).
inline ints positive(const values& scores) {
    ints ids;
    for (natural e : order_by_key(scores, first_indices(scores.size())))
        if (scores[e] > 0) ids.push_back(to_int(e));
    return ids;
}

/// NLLB `sampling`: the first by logits, the second by logits + Gumbel with the first masked.
inline ints sampled_second(const values& logits, const values& noise, natural k) {
    values keys = without_nan(logits);
    const int first = top_k(keys, 1)[0];
    for (natural e = 0; e < keys.size(); ++e) keys[e] += noise[e];
    keys[to_index(first)] = infinity;
    return top_k(keys, k);
}

// ---- SparseMixer-v2 (routing.md §6) ---------------------------------------------------------------------------------

/// Masked softmax of one pick; `excluded` is the first choice or −1.
inline values sparse_mixer_probabilities(const values& z, double r, int excluded) {
    values masked = z;
    if (excluded >= 0) masked[to_index(excluded)] = -infinity;
    const double m = maximum(masked);
    for (natural i = 0; i < z.size(); ++i) {
        const bool keep = masked[i] == m || (m - masked[i]) / std::max(std::fabs(z[i]), m) <= 2 * r;
        if (!keep) masked[i] = -infinity;
    }
    return softmax(masked);
}

/// One pick: argmax, or Gumbel-max over the masked logits when there is noise.
inline int sparse_mixer_choice(const values& z, const values& q, const values& gumbel, int excluded) {
    values keys(z.size());
    std::vector<natural> candidates;
    for (natural i = 0; i < z.size(); ++i) {
        keys[i] = q[i] > 0 ? z[i] + (gumbel.empty() ? 0.0 : gumbel[i]) : -infinity;
        if (to_int(i) != excluded) candidates.push_back(i);
    }
    return top_k(keys, candidates, 1)[0];
}

/// c of the forward multiplier: 1 if the choice is the argmax or u > 0.75, else the code constant 0.3333.
inline double sparse_mixer_factor(const values& q, int choice, double u) {
    return choice == top_k(q, 1)[0] || u > 0.75 ? 1.0 : 0.3333;
}

// ---- Sinkhorn (routing.md §9) ---------------------------------------------------------------------------------------

/// d1·K·d0 with K = exp(z), [T, E].
inline values sinkhorn(const values& logits, natural tokens, natural experts, double tolerance = 1e-4) {
    values k(logits.size()), d0(tokens, 1.0), d1(experts, 1.0);
    for (natural i = 0; i < k.size(); ++i) k[i] = std::exp(logits[i]);
    for (double error = infinity; error > tolerance;) {
        values row_sum(tokens, 0.0), column_sum(experts, 0.0);
        multiply(k.data(), tokens, experts, d1.data(), row_sum.data());
        for (natural t = 0; t < tokens; ++t) d0[t] = 1 / (to_double(tokens) * (row_sum[t] + 1e-8));
        multiply_transposed(k.data(), tokens, experts, d0.data(), column_sum.data());
        error = 0;
        for (natural e = 0; e < experts; ++e) {
            const double next = 1 / (to_double(experts) * (column_sum[e] + 1e-8));
            error += std::fabs(next - d1[e]) / to_double(experts);
            d1[e] = next;
        }
    }
    for (natural t = 0; t < tokens; ++t)
        for (natural e = 0; e < experts; ++e) k[t * experts + e] *= d1[e] * d0[t];
    return k;
}

}  // namespace oracle
