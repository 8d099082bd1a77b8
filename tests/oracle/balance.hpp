// Controllers that balance without a gradient (routing.md §5, training.md §3) and collapse metrics (training.md §7).
#pragma once

#include "losses.hpp"

namespace oracle {

inline double mean(const values& v) { return sum(v) / to_double(v.size()); }

// ---- controllers ----------------------------------------------------------------------------------------------------

/// b_i += u·sign(c̄ − c_i), once per optimiser step from the summed counts.
inline values sign_bias_update(values bias, const values& counts, double u) {
    for (natural i = 0; i < bias.size(); ++i) bias[i] += u * sign(mean(counts) - counts[i]);
    return bias;
}

/// The paper's variant without the sign: b_i += u·(c̄ − c_i).
inline values additive_bias_update(values bias, const values& counts, double u) {
    for (natural i = 0; i < bias.size(); ++i) bias[i] += u * (mean(counts) - counts[i]);
    return bias;
}

/// n-th largest value, n ≥ 1.
inline double nth_largest(values v, natural n) {
    std::sort(v.rbegin(), v.rend());
    return v.at(n - 1);
}

/// Quantile balancing: key = z − β; α_t = (k+1)-th largest key of t; β_i = (Tk/E + 1)-th largest of z_{t,i} − α_t.
inline values quantile_bias_update(const values& beta, const values& logits, natural tokens, natural k) {
    const natural e = beta.size();
    check(tokens * k % e == 0, "oracle: quantile balancing needs E | Tk");
    values alpha(tokens), out(e);
    for (natural t = 0; t < tokens; ++t) {
        values keys = row(logits, t, e);
        for (natural i = 0; i < e; ++i) keys[i] -= beta[i];
        alpha[t] = nth_largest(keys, k + 1);
    }
    for (natural i = 0; i < e; ++i) {
        values column(tokens);
        for (natural t = 0; t < tokens; ++t) column[t] = logits[t * e + i] - alpha[t];
        out[i] = nth_largest(column, tokens * k / e + 1);
    }
    return out;
}

/// ReMoE: λ ← λ·α^{sign(target sparsity − sparsity)}.
inline double relu_coefficient_update(double lambda, double alpha, double target_sparsity, double sparsity) {
    return lambda * std::pow(alpha, sign(target_sparsity - sparsity));
}

/// Share of scores that are not positive.
inline double sparsity(const values& scores) {
    double inactive = 0;
    for (double g : scores) inactive += g > 0 ? 0.0 : 1.0;
    return inactive / to_double(scores.size());
}

// ---- metrics --------------------------------------------------------------------------------------------------------

/// Pairs per expert from ids (−1 = empty).
inline values expert_counts(const ints& ids, natural experts) {
    values c(experts, 0.0);
    for (int id : ids)
        if (id >= 0) c[to_index(id)] += 1;
    return c;
}

inline double max_violation(const values& c) { return maximum(c) / mean(c) - 1; }
inline double min_violation(const values& c) { return 1 - *std::min_element(c.begin(), c.end()) / mean(c); }

inline double mean_violation(const values& c) {
    double total = 0;
    for (double a : c) total += std::fabs(a / mean(c) - 1);
    return total / to_double(c.size());
}

/// std/mean, population.
inline double variation(const values& c) { return std::sqrt(squared_variation(c, variance_kind::population, 0).value); }

/// −Σ q log q of q = v/Σv.
inline double entropy(const values& v) {
    double h = 0;
    const double total = sum(v);
    for (double a : v)
        if (a > 0) h -= a / total * std::log(a / total);
    return h;
}

/// H(mean_t p)/ln E.
inline double utilisation_entropy(const values& p, natural tokens, natural experts) {
    values average(experts, 0.0);
    for (natural t = 0; t < tokens; ++t)
        add_scaled(average.data(), 1 / to_double(tokens), p.data() + t * experts, experts);
    return entropy(average) / std::log(to_double(experts));
}

/// mean_t H(p_t)/ln E.
inline double confidence_entropy(const values& p, natural tokens, natural experts) {
    double total = 0;
    for (natural t = 0; t < tokens; ++t) total += entropy(row(p, t, experts));
    return total / to_double(tokens) / std::log(to_double(experts));
}

inline double load_entropy(const values& c) { return entropy(c) / std::log(to_double(c.size())); }

/// Experts with c_i ≤ fraction·mean; fraction 0 counts c_i = 0, else strictly below.
inline natural dead_experts(const values& c, double fraction = 0) {
    natural n = 0;
    for (double a : c) n += (fraction > 0 ? a < fraction * mean(c) : a == 0) ? 1u : 0u;
    return n;
}

/// exp(H(c/Σc)).
inline double effective_experts(const values& c) { return std::exp(entropy(c)); }

/// (Σc)²/Σc².
inline double participation_ratio(const values& c) { return sum(c) * sum(c) / dot(c.data(), c.data(), c.size()); }

/// Dropped pairs/(T·k).
inline double drop_rate(const ints& chosen, const ints& ids) {
    double dropped = 0;
    for (natural i = 0; i < ids.size(); ++i) dropped += chosen[i] >= 0 && ids[i] < 0 ? 1.0 : 0.0;
    return dropped / to_double(ids.size());
}

/// Filled slots/(E·C).
inline double expert_usage(const ints& ids, natural experts, natural limit) {
    return sum(expert_counts(ids, experts)) / to_double(experts * limit);
}

/// P(j | i): share of the tokens with expert i that also have j, [E, E].
inline values co_activation(const ints& ids, natural slots, natural experts) {
    values both(experts * experts, 0.0);
    const values c = expert_counts(ids, experts);
    for (natural first = 0; first < ids.size(); first += slots)
        for (natural a = first; a < first + slots; ++a)
            for (natural b = first; b < first + slots; ++b)
                if (a != b && ids[a] >= 0 && ids[b] >= 0)
                    both[to_index(ids[a]) * experts + to_index(ids[b])] += 1 / c[to_index(ids[a])];
    return both;
}

/// Router saturation: mean overlap of two top-k choices, as a share of k.
inline double saturation(const ints& early, const ints& late, natural slots) {
    double same = 0;
    for (natural i = 0; i < early.size(); ++i)
        for (natural s = 0; s < slots; ++s)
            same += early[i] >= 0 && early[i] == late[i / slots * slots + s] ? 1.0 : 0.0;
    return same / to_double(early.size());
}

inline double root_mean_square(const values& v) {
    return std::sqrt(dot(v.data(), v.data(), v.size()) / to_double(v.size()));
}

}  // namespace oracle
