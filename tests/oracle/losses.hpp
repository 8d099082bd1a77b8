// Load-balancing losses and other regularisers of the router (training.md §1, §2), each with its gradient.
//
// A loss takes probabilities p [T, E] and the chosen ids [T, k] (−1 = empty) and gives its value and dL/dp; `to_logits`
// carries that through the score. Layers of a loss that spans layers are stacked as more tokens.
#pragma once

#include "select.hpp"

namespace oracle {

/// The tokens of one loss.
struct loss_input {
    natural tokens = 0, experts = 0, k = 1;
    values p;     // [T, E] scores normalised to sum 1
    ints ids;     // [T, k]
    values mask;  // [T] 1 = token, 0 = padding; empty: all tokens

    double weight(natural t) const { return mask.empty() ? 1.0 : mask[t]; }
    double valid() const { return mask.empty() ? to_double(tokens) : sum(mask); }
};

struct loss {
    double value = 0;
    values dp;  // [T, E], or dz where the loss is one of the logits
};

// ---- probabilities --------------------------------------------------------------------------------------------------

/// Scores as the losses see them: softmax as it is, others ÷ (Σ + 1e-20) (training.md §1).
inline values aux_probabilities(score_kind kind, const values& logits, natural tokens, natural experts) {
    values p(logits.size());
    for (natural t = 0; t < tokens; ++t) {
        values g = scores_of(kind, row(logits, t, experts));
        const double total = is_softmax(kind) ? 1.0 : sum(g) + 1e-20;
        for (double& a : g) a /= total;
        set_row(p, t, g);
    }
    return p;
}

inline values to_logits(score_kind kind, const values& logits, natural tokens, natural experts, const values& dp) {
    values dz(logits.size());
    for (natural t = 0; t < tokens; ++t) {
        const values z = row(logits, t, experts), g = scores_of(kind, z), d = row(dp, t, experts);
        const double total = is_softmax(kind) ? 1.0 : sum(g) + 1e-20;
        const double along = is_softmax(kind) ? 0.0 : dot(d.data(), g.data(), experts) / (total * total);
        values dg(experts);
        for (natural i = 0; i < experts; ++i) dg[i] = d[i] / total - along;
        set_row(dz, t, scores_backward(kind, z, dg));
    }
    return dz;
}

/// Top-k ids of every row, for losses that count the choice of the unbiased scores.
inline ints top_k_rows(const values& scores, natural tokens, natural experts, natural k) {
    ints ids;
    for (natural t = 0; t < tokens; ++t)
        for (int id : top_k(row(scores, t, experts), k)) ids.push_back(id);
    return ids;
}

// ---- parts ----------------------------------------------------------------------------------------------------------

/// c_i over the slots [first_slot, last_slot), padding left out.
inline values counts_of(const loss_input& in, natural first_slot, natural last_slot) {
    values c(in.experts, 0.0);
    for (natural t = 0; t < in.tokens; ++t)
        for (natural s = first_slot; s < last_slot; ++s)
            if (in.ids[t * in.k + s] >= 0) c[to_index(in.ids[t * in.k + s])] += in.weight(t);
    return c;
}

inline values counts_of(const loss_input& in) { return counts_of(in, 0, in.k); }

/// Counts of argmax p.
inline values top1_counts(const loss_input& in) {
    loss_input first = in;
    first.ids = top_k_rows(in.p, in.tokens, in.experts, 1);
    first.k = 1;
    return counts_of(first);
}

/// #{t : i ∈ S_t}: at most one per token.
inline values member_counts(const loss_input& in) {
    values c(in.experts, 0.0);
    for (natural t = 0; t < in.tokens; ++t) {
        std::vector<bool> seen(in.experts, false);
        for (natural s = 0; s < in.k; ++s)
            if (const int id = in.ids[t * in.k + s]; id >= 0) seen[to_index(id)] = true;
        for (natural i = 0; i < in.experts; ++i) c[i] += seen[i] ? in.weight(t) : 0.0;
    }
    return c;
}

/// P_i = mean of p over the valid tokens.
inline values mean_probabilities(const loss_input& in) {
    values mean(in.experts, 0.0);
    for (natural t = 0; t < in.tokens; ++t)
        add_scaled(mean.data(), in.weight(t) / in.valid(), in.p.data() + t * in.experts, in.experts);
    return mean;
}

/// Σ_i coefficient_i · P_i: the common form. f is constant, so ∂/∂p_{t,i} = coefficient_i/T.
inline loss linear_in_mean(const loss_input& in, const values& coefficient) {
    loss out{dot(coefficient.data(), mean_probabilities(in).data(), in.experts), values(in.p.size(), 0.0)};
    for (natural t = 0; t < in.tokens; ++t)
        add_scaled(out.dp.data() + t * in.experts, in.weight(t) / in.valid(), coefficient.data(), in.experts);
    return out;
}

inline values scaled(values v, double factor) {
    for (double& a : v) a *= factor;
    return v;
}

/// Tokens [first, first + n) as a loss of their own.
inline loss_input part_of(const loss_input& in, natural first, natural n) {
    loss_input out{n, in.experts, in.k, {}, {}, {}};
    for (natural i = first * in.experts; i < (first + n) * in.experts; ++i) out.p.push_back(in.p[i]);
    for (natural i = first * in.k; i < (first + n) * in.k; ++i) out.ids.push_back(in.ids[i]);
    for (natural t = first; t < first + n && !in.mask.empty(); ++t) out.mask.push_back(in.mask[t]);
    return out;
}

/// Mean of a loss over parts that begin at `starts` (ascending, the first is 0).
template <class Loss>
loss mean_over_parts(const loss_input& in, const std::vector<natural>& starts, Loss one) {
    loss out;
    for (natural g = 0; g < starts.size(); ++g) {
        const natural end = g + 1 < starts.size() ? starts[g + 1] : in.tokens;
        const loss part = one(part_of(in, starts[g], end - starts[g]));
        out.value += part.value / to_double(starts.size());
        for (double d : part.dp) out.dp.push_back(d / to_double(starts.size()));
    }
    return out;
}

/// Starts of equal groups; 0 is one group of all tokens.
inline std::vector<natural> equal_groups(natural tokens, natural group) {
    std::vector<natural> starts;
    for (natural t = 0; t < tokens; t += group == 0 ? tokens : group) starts.push_back(t);
    return starts;
}

// ---- the twelve balancing losses (training.md §1) -------------------------------------------------------------------

/// 1. Switch: α·E·Σ f_i P_i, f of argmax p.
inline loss switch_loss(const loss_input& in, double alpha) {
    return linear_in_mean(in, scaled(top1_counts(in), alpha * to_double(in.experts) / in.valid()));
}

/// 2. GShard / mesh top-2: mean_i(f_i P_i)·E² of the top-1 counts, mean over groups.
inline loss gshard_loss(const loss_input& in, natural group = 0) {
    return mean_over_parts(in, equal_groups(in.tokens, group), [](const loss_input& g) {
        return linear_in_mean(g, scaled(top1_counts(g), to_double(g.experts) / g.valid()));
    });
}

/// 3. The second-place term of mesh alone: 0.5·E²·mean_i(f2_i P2_i), P2 of p without its top 1, ÷ (Σ + 1e-9).
inline loss second_place_one_group(const loss_input& in) {
    loss_input rest = in;
    values total(in.tokens, 1e-9);
    const ints first = top_k_rows(in.p, in.tokens, in.experts, 1);
    for (natural t = 0; t < in.tokens; ++t) {
        rest.p[t * in.experts + to_index(first[t])] = 0;
        total[t] += sum(row(rest.p, t, in.experts));
        for (natural i = 0; i < in.experts; ++i) rest.p[t * in.experts + i] /= total[t];
    }
    loss out = linear_in_mean(rest, scaled(counts_of(in, 1, 2), 0.5 * to_double(in.experts) / in.valid()));
    for (natural t = 0; t < in.tokens; ++t) {
        double* d = out.dp.data() + t * in.experts;
        const double along = dot(d, rest.p.data() + t * in.experts, in.experts);
        for (natural i = 0; i < in.experts; ++i) d[i] = to_int(i) == first[t] ? 0.0 : (d[i] - along) / total[t];
    }
    return out;
}

inline loss second_place_loss(const loss_input& in, natural group = 0) {
    return mean_over_parts(in, equal_groups(in.tokens, group), second_place_one_group);
}

/// 4. flaxformer / T5X: f counts a token once, mean_i(f_i P_i)·E² per group.
inline loss flaxformer_loss(const loss_input& in, natural group = 0) {
    return mean_over_parts(in, equal_groups(in.tokens, group), [](const loss_input& g) {
        return linear_in_mean(g, scaled(member_counts(g), to_double(g.experts) / g.valid()));
    });
}

/// 5. HF: E·Σ_s Σ_i f_{s,i} P_i with f_{s,i} = mean_t 1[e_{t,s} = i]; stack all layers' tokens first.
inline loss hf_loss(const loss_input& in) {
    return linear_in_mean(in, scaled(counts_of(in), to_double(in.experts) / in.valid()));
}

/// 6. Megatron: α·E/(k·T²)·Σ_i c_i Σ_t p_{t,i}.
inline loss megatron_loss(const loss_input& in, double alpha) {
    return linear_in_mean(in, scaled(counts_of(in), alpha * to_double(in.experts) / (to_double(in.k) * in.valid())));
}

/// f_i = E/(kT)·c_i of DeepSeekMoE.
inline values deepseek_fractions(const loss_input& in) {
    return scaled(counts_of(in), to_double(in.experts) / (to_double(in.k) * in.valid()));
}

/// 7. DeepSeekMoE expert-level: α1·Σ f_i P_i.
inline loss expert_level_loss(const loss_input& in, double alpha) {
    return linear_in_mean(in, scaled(deepseek_fractions(in), alpha));
}

/// Spreads a value per device to its experts.
inline values to_experts(const values& by_device, natural experts) {
    values out(experts);
    for (natural i = 0; i < experts; ++i) out[i] = by_device[i / (experts / by_device.size())];
    return out;
}

/// 8. Device-level: α2·Σ_d f'_d P'_d, f' the mean of f over the experts of d, P' the sum of P.
inline loss device_level_loss(const loss_input& in, natural devices, double alpha) {
    const values f = deepseek_fractions(in);
    values mean(devices, 0.0);
    for (natural i = 0; i < in.experts; ++i) mean[i / (in.experts / devices)] += f[i] / to_double(in.experts / devices);
    return linear_in_mean(in, scaled(to_experts(mean, in.experts), alpha));
}

/// 9. Communication (V2): f''_d = D/(M·T)·#{t : token sent to d}.
inline loss communication_loss(const loss_input& in, natural devices, natural max_devices, double alpha) {
    values sent(devices, 0.0);
    for (natural t = 0; t < in.tokens; ++t) {
        std::vector<bool> to(devices, false);
        for (natural s = 0; s < in.k; ++s)
            if (const int id = in.ids[t * in.k + s]; id >= 0) to[to_index(id) / (in.experts / devices)] = true;
        for (natural d = 0; d < devices; ++d) sent[d] += to[d] ? in.weight(t) : 0.0;
    }
    const double factor = to_double(devices) / (to_double(max_devices) * in.valid());
    return linear_in_mean(in, scaled(to_experts(sent, in.experts), alpha * factor));
}

/// 10. Sequence-wise (V3): α·mean over sequences of Σ f_i P_i, f of the top-k of p itself (the unbiased scores).
inline loss sequence_loss(const loss_input& in, const std::vector<natural>& starts, double alpha) {
    loss_input unbiased = in;
    unbiased.ids = top_k_rows(in.p, in.tokens, in.experts, in.k);
    return mean_over_parts(
        unbiased, starts, [&](const loss_input& s) { return linear_in_mean(s, scaled(deepseek_fractions(s), alpha)); });
}

/// 11. Global batch (Qwen): E·Σ f_i P_i, f_i = counts_i/total of the whole batch. total = T gives k at balance, kT
/// gives 1.
inline loss global_batch_loss(const loss_input& in, const values& counts, double total) {
    return linear_in_mean(in, scaled(counts, to_double(in.experts) / total));
}

/// 12. mesh expert selection: g·mean_t((mean_i p_{t,i})²·g), p normalised over the g tokens.
inline loss expert_selection_loss(const loss_input& in) {
    const double g = in.valid(), e = to_double(in.experts);
    loss out{0, values(in.p.size(), 0.0)};
    for (natural t = 0; t < in.tokens; ++t) {
        const double mean = sum(row(in.p, t, in.experts)) / e;
        out.value += g * in.weight(t) * mean * mean;
        for (natural i = 0; i < in.experts; ++i) out.dp[t * in.experts + i] = g * in.weight(t) * 2 * mean / e;
    }
    return out;
}

// ---- other regularisers (training.md §2) ----------------------------------------------------------------------------

/// c·mean_t lse², dz = (2c/T)·lse·softmax(z). `dp` is dz here.
inline loss z_loss(const values& logits, natural tokens, natural experts, double c, const values& mask = {}) {
    loss_input in{tokens, experts, 1, logits, {}, mask};
    loss out{0, values(logits.size())};
    for (natural t = 0; t < tokens; ++t) {
        const values z = row(logits, t, experts);
        const double lse = log_sum_exp(z), weight = c * in.weight(t) / in.valid();
        out.value += weight * lse * lse;
        set_row(out.dp, t, scaled(softmax(z), 2 * weight * lse));
    }
    return out;
}

enum class variance_kind { population, sample };

/// Var/(mean² + ε) and its gradient: 2(I_i − m)/(n m²) − 2 Var/(E m³) for ε = 0.
inline loss squared_variation(const values& v, variance_kind kind = variance_kind::population, double epsilon = 1e-10) {
    const double e = to_double(v.size()), m = sum(v) / e, n = kind == variance_kind::population ? e : e - 1;
    double variance = 0;
    for (double a : v) variance += (a - m) * (a - m) / n;
    const double d = m * m + epsilon;
    loss out{variance / d, values(v.size())};
    for (natural i = 0; i < v.size(); ++i) out.dp[i] = 2 * (v[i] - m) / (n * d) - 2 * variance * m / (e * d * d);
    return out;
}

/// w·CV²(I), I_i = Σ_t G_{t,i}; gates [T, E]: combine weights after top-k (Shazeer) or softmax (V-MoE).
inline loss importance_loss(const values& gates, natural tokens, natural experts, double w,
                            variance_kind kind = variance_kind::population, double epsilon = 1e-10) {
    values importance(experts, 0.0);
    for (natural t = 0; t < tokens; ++t) add_scaled(importance.data(), 1, gates.data() + t * experts, experts);
    const loss cv = squared_variation(importance, kind, epsilon);
    loss out{w * cv.value, values(gates.size())};
    for (natural t = 0; t < tokens; ++t) set_row(out.dp, t, scaled(cv.dp, w));
    return out;
}

/// Load loss with the gradients of the clean logits, the noisy logits (through the thresholds) and σ.
struct load_loss_result {
    double value = 0;
    values load;                             // [E]
    values d_clean, d_noisy, d_noise_scale;  // [T, E]
};

/// P(i in the top k) of token t as Φ(x), x = (z_i − thr_i)/σ_i; thr is the (k+1)-th noisy value if i is in the top k,
/// else the k-th (tensor2tensor). V-MoE takes the k-th for all.
struct load_term {
    double x = 0;
    natural threshold_at = 0;
};

inline std::vector<load_term> load_terms(const values& clean, const values& noisy, const values& sigma, natural k,
                                         bool v_moe) {
    const std::vector<natural> order = order_by_key(noisy, first_indices(noisy.size()));
    std::vector<load_term> out(noisy.size());
    for (natural rank = 0; rank < order.size(); ++rank) {
        const natural i = order[rank], at = order[!v_moe && rank < k ? k : k - 1];
        out[i] = {(clean[i] - noisy[at]) / sigma[i], at};
    }
    return out;
}

/// w·CV²(Load), Load_i = Σ_t (Shazeer) or mean_t (V-MoE) of Φ. Needs k < E.
inline load_loss_result load_loss(const values& clean, const values& noisy, const values& sigma, natural tokens,
                                  natural experts, natural k, double w, bool v_moe = false,
                                  variance_kind kind = variance_kind::population, double epsilon = 1e-10) {
    check(k < experts, "oracle: the load loss needs k < E");
    load_loss_result out{0, values(experts, 0.0), values(clean.size(), 0.0), values(clean.size(), 0.0),
                         values(clean.size(), 0.0)};
    const double share = v_moe ? 1 / to_double(tokens) : 1.0;
    const auto terms_of = [&](natural t) {
        return load_terms(row(clean, t, experts), row(noisy, t, experts), row(sigma, t, experts), k, v_moe);
    };
    for (natural t = 0; t < tokens; ++t) {
        const std::vector<load_term> terms = terms_of(t);
        for (natural i = 0; i < experts; ++i) out.load[i] += share * normal_cdf(terms[i].x);
    }
    const loss cv = squared_variation(out.load, kind, epsilon);
    out.value = w * cv.value;
    for (natural t = 0; t < tokens; ++t) {
        const std::vector<load_term> terms = terms_of(t);
        for (natural i = 0; i < experts; ++i) {
            const double s = sigma[t * experts + i], d = w * cv.dp[i] * share * normal_pdf(terms[i].x) / s;
            out.d_clean[t * experts + i] += d;
            out.d_noisy[t * experts + terms[i].threshold_at] -= d;
            out.d_noise_scale[t * experts + i] -= d * terms[i].x;
        }
    }
    return out;
}

/// β·mean_t −Σ p log p (top-p routing).
inline loss entropy_loss(const loss_input& in, double beta) {
    loss out{0, values(in.p.size(), 0.0)};
    for (natural t = 0; t < in.tokens; ++t)
        for (natural i = t * in.experts; i < (t + 1) * in.experts; ++i) {
            const double weight = beta * in.weight(t) / in.valid();
            if (in.p[i] <= 0) continue;
            out.value -= weight * in.p[i] * std::log(in.p[i]);
            out.dp[i] = -weight * (std::log(in.p[i]) + 1);
        }
    return out;
}

/// −λ·mean_{t,i} (p − mean_t p)² (2505.22323, with a mean for its sum over tokens).
inline loss score_variance_loss(const loss_input& in, double lambda) {
    loss out{0, values(in.p.size(), 0.0)};
    for (natural i = 0; i < in.experts; ++i) {
        double mean = 0;
        for (natural t = 0; t < in.tokens; ++t) mean += in.weight(t) * in.p[t * in.experts + i] / in.valid();
        for (natural t = 0; t < in.tokens; ++t) {
            const double weight = lambda * in.weight(t) / (in.valid() * to_double(in.experts));
            const double difference = in.p[t * in.experts + i] - mean;
            out.value -= weight * difference * difference;
            out.dp[t * in.experts + i] = -2 * weight * difference;
        }
    }
    return out;
}

/// ReMoE: λ·Σ_i mean_t ReLU(z). `dp` is dz here.
inline loss relu_loss(const values& logits, natural tokens, double lambda) {
    loss out{0, values(logits.size(), 0.0)};
    for (natural i = 0; i < logits.size(); ++i) {
        out.value += lambda * std::max(logits[i], 0.0) / to_double(tokens);
        out.dp[i] = logits[i] > 0 ? lambda / to_double(tokens) : 0.0;
    }
    return out;
}

/// Σ_{i≠j} (ŵ_i·ŵ_j)² of the router's rows (ERNIE-4.5). `dp` is the gradient of the router weight [E, H].
inline loss orthogonality_loss(const values& router, natural experts, natural hidden) {
    values unit(router.size()), d_unit(router.size(), 0.0), norm(experts);
    for (natural i = 0; i < experts; ++i) {
        const double* w = router.data() + i * hidden;
        norm[i] = std::sqrt(dot(w, w, hidden));
        for (natural h = 0; h < hidden; ++h) unit[i * hidden + h] = w[h] / norm[i];
    }
    loss out{0, values(router.size())};
    for (natural i = 0; i < experts; ++i)
        for (natural j = 0; j < experts; ++j) {
            if (i == j) continue;
            const double c = dot(unit.data() + i * hidden, unit.data() + j * hidden, hidden);
            out.value += c * c;
            add_scaled(d_unit.data() + i * hidden, 4 * c, unit.data() + j * hidden, hidden);
        }
    for (natural i = 0; i < experts; ++i) {
        const double along = dot(d_unit.data() + i * hidden, unit.data() + i * hidden, hidden);
        for (natural h = i * hidden; h < (i + 1) * hidden; ++h) out.dp[h] = (d_unit[h] - along * unit[h]) / norm[i];
    }
    return out;
}

}  // namespace oracle
