// Losses of other forms than Σ f P on the CPU: each walks the tokens once for its value and once for its gradient.
//
// Everything is double, sums over tokens go upwards.
#pragma once

#include <cstdint>
#include <utility>

#include <gatefold/core/random.hpp>
#include <gatefold/core/workspace.hpp>
#include <gatefold/cpu/losses/probabilities.hpp>
#include <gatefold/cpu/router/row_backward.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

template <layer_type L>
double add_to(context<cpu>&, const losses::z_loss& loss, const stacked_tokens<L>& tokens) {
    using A = typename L::accumulate_type;
    constexpr int n = L::choices;
    const double valid = tokens.valid(0, tokens.all);
    if (valid == 0) return 0;
    const double step = loss.coefficient / valid;
    double value = 0;
    for (index_t t = 0; t < tokens.all; ++t) {
        if (!tokens.counts(t)) continue;
        double z[std::size_t{n}], p[std::size_t{n}], sum = 0;
        for (int i = 0; i < n; ++i) z[i] = static_cast<double>(tokens.logits(t)[i]);
        const double m = largest(z, n);
        if (!(m > minus_infinity<double>)) continue;
        for (int i = 0; i < n; ++i) sum += p[i] = softmax_term(z[i], m);
        const double lse = m + gatefold::log(sum);
        value = gatefold::fma(gatefold::mul(step, lse), lse, value);
        for (int i = 0; i < n; ++i) tokens.gradient(t)[i] += static_cast<A>(gatefold::mul(2 * step * lse, p[i] / sum));
    }
    return value;
}

template <layer_type L>
double add_to(context<cpu>&, const losses::relu_sparsity& loss, const stacked_tokens<L>& tokens) {
    using A = typename L::accumulate_type;
    const double valid = tokens.valid(0, tokens.all);
    if (valid == 0) return 0;
    const double step = loss.coefficient / valid;
    double sum = 0;
    for (index_t t = 0; t < tokens.all; ++t)
        for (int i = 0; tokens.counts(t) && i < L::choices; ++i)
            if (const auto z = static_cast<double>(tokens.logits(t)[i]); z > 0) {
                sum += z;
                tokens.gradient(t)[i] += static_cast<A>(step);
            }
    return step * sum;
}

template <layer_type L>
double add_to(context<cpu>& ctx, const losses::entropy& loss, const stacked_tokens<L>& tokens) {
    constexpr int n = L::choices;
    const double valid = tokens.valid(0, tokens.all);
    if (valid == 0) return 0;
    const token_probabilities<L> all(ctx, tokens);
    const double step = loss.coefficient / valid;
    double value = 0;
    for (index_t t = 0; t < tokens.all; ++t) {
        if (!tokens.counts(t)) continue;
        const double* p = all.p + t * n;
        double d[std::size_t{n}];
        for (int i = 0; i < n; ++i) {
            const double l = p[i] > 0 ? gatefold::log(p[i]) : 0;
            value = gatefold::fma(-gatefold::mul(step, p[i]), l, value);
            d[i] = p[i] > 0 ? -step * (l + 1) : 0;
        }
        probabilities_backward<L>(tokens.logits(t), p, all.sums[t], d, tokens.gradient(t));
    }
    return value;
}

template <layer_type L>
double add_to(context<cpu>& ctx, const losses::score_variance& loss, const stacked_tokens<L>& tokens) {
    constexpr int n = L::choices;
    const double valid = tokens.valid(0, tokens.all);
    if (valid == 0) return 0;
    const token_probabilities<L> all(ctx, tokens);
    double mean[std::size_t{n}] = {};
    for (index_t t = 0; t < tokens.all; ++t)
        for (int i = 0; tokens.counts(t) && i < n; ++i) mean[i] += all.p[t * n + i] / valid;
    const double step = loss.coefficient / (valid * n);
    double value = 0;
    for (index_t t = 0; t < tokens.all; ++t) {
        if (!tokens.counts(t)) continue;
        const double* p = all.p + t * n;
        double d[std::size_t{n}];
        for (int i = 0; i < n; ++i) {
            const double apart = p[i] - mean[i];
            value = gatefold::fma(-gatefold::mul(step, apart), apart, value);
            d[i] = -2 * step * apart;
        }
        probabilities_backward<L>(tokens.logits(t), p, all.sums[t], d, tokens.gradient(t));
    }
    return value;
}

/// One group of second_place.
template <layer_type L>
double add_second_place(double coefficient, const stacked_tokens<L>& tokens, const token_probabilities<L>& all,
                        index_t first, index_t last) {
    constexpr int n = L::choices;
    const double valid = tokens.valid(first, last);
    if (valid == 0) return 0;
    const auto without_best = [&](index_t t, double* rest) {
        const double* p = all.p + t * n;
        int best = 0;
        double total = 1e-9;
        for (int i = 1; i < n; ++i) best = p[i] > p[best] ? i : best;
        for (int i = 0; i < n; ++i) total += i == best ? 0 : p[i];
        for (int i = 0; i < n; ++i) rest[i] = i == best ? 0 : p[i] / total;
        return std::pair{best, total};
    };
    double counts[std::size_t{n}] = {}, mean[std::size_t{n}] = {}, rest[std::size_t{n}];
    for (index_t t = first; t < last; ++t) {
        if (!tokens.counts(t)) continue;
        without_best(t, rest);
        if (const std::int32_t e = tokens.ids(t)[1]; e >= 0) counts[e] += 1;
        for (int i = 0; i < n; ++i) mean[i] += rest[i];
    }
    const double factor = coefficient * 0.5 * n / valid / valid;
    double value = 0;
    for (int i = 0; i < n; ++i) {
        counts[i] = gatefold::mul(counts[i], factor);
        value = gatefold::fma(counts[i], mean[i], value);
    }
    for (index_t t = first; t < last; ++t) {
        if (!tokens.counts(t)) continue;
        const auto [best, total] = without_best(t, rest);
        double along = 0, d[std::size_t{n}];
        for (int i = 0; i < n; ++i) along = gatefold::fma(counts[i], rest[i], along);
        for (int i = 0; i < n; ++i) d[i] = i == best ? 0 : (counts[i] - along) / total;
        probabilities_backward<L>(tokens.logits(t), all.p + t * n, all.sums[t], d, tokens.gradient(t));
    }
    return value;
}

template <layer_type L>
double add_to(context<cpu>& ctx, const losses::second_place& loss, const stacked_tokens<L>& tokens) {
    static_assert(L::slots >= 2, "gatefold::add_loss: second_place is about second experts; set .top_k to 2");
    const token_probabilities<L> all(ctx, tokens);
    return mean_over_groups(tokens, loss.group, [&](index_t first, index_t last, double share) {
        return add_second_place(loss.coefficient * share, tokens, all, first, last);
    });
}

template <layer_type L>
double add_to(context<cpu>&, const losses::expert_selection& loss, const stacked_tokens<L>& tokens) {
    using A = typename L::accumulate_type;
    constexpr int n = L::choices;
    const double valid = tokens.valid(0, tokens.all);
    if (valid == 0) return 0;
    double m[std::size_t{n}], total[std::size_t{n}] = {}, along[std::size_t{n}] = {};
    for (int i = 0; i < n; ++i) m[i] = minus_infinity<double>;
    const auto logit = [&](index_t t, int i) { return static_cast<double>(tokens.logits(t)[i]); };
    const auto each_token = [&](auto f) {
        for (index_t t = 0; t < tokens.all; ++t)
            if (tokens.counts(t)) f(t);
    };
    const auto p = [&](index_t t, int i) { return total[i] > 0 ? softmax_term(logit(t, i), m[i]) / total[i] : 0; };
    const auto mean = [&](index_t t) {
        double sum = 0;
        for (int i = 0; i < n; ++i) sum += p(t, i);
        return sum / n;
    };
    each_token([&](index_t t) {
        for (int i = 0; i < n; ++i) m[i] = logit(t, i) > m[i] ? logit(t, i) : m[i];
    });
    each_token([&](index_t t) {
        for (int i = 0; i < n; ++i)
            if (m[i] > minus_infinity<double>) total[i] += softmax_term(logit(t, i), m[i]);
    });
    const double step = loss.coefficient * valid;
    double value = 0;
    each_token([&](index_t t) {
        const double q = mean(t);
        value = gatefold::fma(gatefold::mul(step, q), q, value);
        for (int i = 0; i < n; ++i) along[i] = gatefold::fma(2 * step * q / n, p(t, i), along[i]);
    });
    each_token([&](index_t t) {
        const double d = 2 * step * mean(t) / n;
        for (int i = 0; i < n; ++i) tokens.gradient(t)[i] += static_cast<A>(gatefold::mul(p(t, i), d - along[i]));
    });
    return value;
}

/// coefficient · CV² of v; replaces v by its gradient.
inline double squared_variation(double* v, int n, double coefficient, losses::variance kind) {
    double m = 0, spread = 0;
    for (int i = 0; i < n; ++i) m += v[i] / n;
    const double divisor = kind == losses::variance::sample ? n - 1 : n;
    for (int i = 0; i < n; ++i) spread = gatefold::fma((v[i] - m) / divisor, v[i] - m, spread);
    const double square = gatefold::fma(m, m, 1e-10);
    for (int i = 0; i < n; ++i)
        v[i] = coefficient * (2 * (v[i] - m) / (divisor * square) - 2 * spread * m / (n * square * square));
    return coefficient * spread / square;
}

template <layer_type L>
double add_to(context<cpu>& ctx, const losses::importance& loss, const stacked_tokens<L>& tokens) {
    constexpr int n = L::choices;
    const token_probabilities<L> all(ctx, tokens);
    double sum[std::size_t{n}] = {};
    for (index_t t = 0; t < tokens.all; ++t)
        for (int i = 0; tokens.counts(t) && i < n; ++i) sum[i] += all.p[t * n + i];
    const double value = squared_variation(sum, n, loss.coefficient, loss.kind);
    for (index_t t = 0; t < tokens.all; ++t)
        if (tokens.counts(t))
            probabilities_backward<L>(tokens.logits(t), all.p + t * n, all.sums[t], sum, tokens.gradient(t));
    return value;
}

template <layer_type L>
double add_to(context<cpu>&, const losses::gate_importance& loss, const stacked_tokens<L>& tokens) {
    using A = typename L::accumulate_type;
    constexpr int n = L::choices;
    constexpr router_config r = L::c.router;
    static_assert(!r.expert_scale && r.second == second_expert::always && r.select != selection::sparse_mixer &&
                      r.scores_in == precision::accumulate && r.from != score::softmax_tokens,
                  "gatefold::add_loss: gate_importance needs weights that follow from the logits alone; use "
                  "losses::importance");
    const auto each = [](int) { return true; };
    constexpr double scale = r.scaled == scale_at::output ? 1 : r.scale;
    double sum[std::size_t{n}] = {};
    for (index_t t = 0; t < tokens.all; ++t) {
        if (!tokens.counts(t)) continue;
        A v[std::size_t{L::slots}], w[std::size_t{L::slots}];
        const std::int32_t* ids = tokens.ids(t);
        if (row_undecided(tokens.logits(t), n))
            weigh_undecided<L>(ids, scale, static_cast<const A*>(nullptr), w);
        else {
            chosen_scores<L>(tokens.logits(t), ids, v);
            weigh_token<L>(v, ids, scale, r.epsilon, static_cast<const A*>(nullptr), each, w);
        }
        for (int s = 0; s < L::slots; ++s)
            if (ids[s] >= 0) sum[ids[s]] += static_cast<double>(w[s]);
    }
    const double value = squared_variation(sum, n, loss.coefficient, loss.kind);
    for (index_t t = 0; t < tokens.all; ++t) {
        if (!tokens.counts(t) || row_undecided(tokens.logits(t), n)) continue;
        A v[std::size_t{L::slots}], dw[std::size_t{L::slots}];
        const std::int32_t* ids = tokens.ids(t);
        chosen_scores<L>(tokens.logits(t), ids, v);
        for (int s = 0; s < L::slots; ++s) dw[s] = ids[s] >= 0 ? static_cast<A>(sum[ids[s]]) : A(0);
        token_backward<L>(tokens.logits(t), v, ids, dw, scale, r.epsilon, static_cast<const A*>(nullptr), each,
                          tokens.gradient(t));
    }
    return value;
}

/// Φ(x), and its derivative.
inline double normal_cdf(double x) { return 0.5 * (1 + gatefold::erf(x * 0.70710678118654752)); }
inline double normal_density(double x) { return 0.3989422804014327 * gatefold::exp(-0.5 * gatefold::mul(x, x)); }

/// How likely each expert of one token is to be among the k best under another draw of its noise: P = Φ(x), x = (clean
/// logit - a noisy one) / deviation. V-MoE takes the k-th best noisy logit; with learned deviations (tensor2tensor) an
/// expert among the k best is measured against the one that would follow.
template <layer_type L>
struct load_terms {
    using A = typename L::accumulate_type;
    static constexpr int n = L::choices, k = L::top_k;
    static constexpr bool learned = L::c.router.transform == logit_transform::noisy_top_k;
    double x[std::size_t{n}], deviation[std::size_t{n}], noise[std::size_t{n}];
    std::int32_t threshold[std::size_t{n}];

    load_terms(const load_of_call<L>& load, const stacked_tokens<L>& tokens, index_t t) {
        constexpr int most = learned ? k + 1 : k;
        const A* z = tokens.logits(t);
        const counter_rng draw{load.call.seed, load.call.step, static_cast<int>(load.call.layer)};
        order_word<A> best[std::size_t{most}];
        std::int32_t ids[std::size_t{most}] = {};
        best_of(
            n, most, [&](int i) { return order_key(z[i]); }, best, ids);
        for (int i = 0; i < n; ++i) {
            bool among = false;
            for (int s = 0; s < k; ++s) among = among || ids[s] == i;
            threshold[i] = ids[learned && among ? most - 1 : k - 1];
            deviation[i] = learned ? static_cast<double>(tokens.tapes[0]->deviations()(t, i))
                                   : static_cast<double>(load.call.noise) / n;
            noise[i] = static_cast<double>(draw.template normal<A>(purpose::gaussian, tokens.first + t, i));
            x[i] = (static_cast<double>(z[i]) - static_cast<double>(z[threshold[i]])) / deviation[i] - noise[i];
        }
    }
};

/// CV² of the sums (learned deviations) or means (V-MoE) of P; without noise of how often experts were chosen.
template <layer_type L>
double add_to(context<cpu>&, const load_of_call<L>& load, const stacked_tokens<L>& tokens) {
    using A = typename L::accumulate_type;
    constexpr int n = L::choices;
    constexpr bool learned = load_terms<L>::learned;
    const double valid = tokens.valid(0, tokens.all), share = learned ? 1 : 1 / valid;
    if (valid == 0) return 0;
    bool noisy = false;
    if constexpr (L::top_k < n) noisy = load.call.training && (learned || load.call.noise > 0);
    const auto counts = [&](index_t t) { return tokens.counts(t) && !row_undecided(tokens.logits(t), n); };
    double sum[std::size_t{n}] = {};
    for (index_t t = 0; t < tokens.all; ++t) {
        if (!counts(t)) continue;
        if constexpr (L::top_k < n) {
            if (noisy) {
                const load_terms<L> terms(load, tokens, t);
                for (int i = 0; i < n; ++i) sum[i] += normal_cdf(terms.x[i]) * share;
                continue;
            }
        }
        for (int s = 0; s < L::slots; ++s)
            if (tokens.ids(t)[s] >= 0) sum[tokens.ids(t)[s]] += share;
    }
    const double value = squared_variation(sum, n, load.loss.coefficient, load.loss.kind);
    if constexpr (L::top_k < n)
        for (index_t t = 0; noisy && t < tokens.all; ++t) {
            if (!counts(t)) continue;
            const load_terms<L> terms(load, tokens, t);
            double d_noisy[std::size_t{n}] = {};
            for (int i = 0; i < n; ++i) {
                const double d = gatefold::mul(sum[i], normal_density(terms.x[i])) * share / terms.deviation[i];
                d_noisy[i] += d;
                d_noisy[terms.threshold[i]] -= d;
                // The clean logit is the noisy one less its noise, so the deviation is felt twice.
                if constexpr (learned)
                    tokens.tapes[0]->deviation_gradients()(t, i) -=
                        static_cast<A>(gatefold::mul(d, terms.x[i] + terms.noise[i]));
            }
            for (int i = 0; i < n; ++i) tokens.gradient(t)[i] += static_cast<A>(d_noisy[i]);
        }
    return value;
}

/// Σ over i != j of the squared cosine of rows i and j.
template <class Router>
double add_orthogonality(context<cpu>& ctx, const Router& router) {
    using A = std::remove_pointer_t<decltype(router.router_gradient.data())>;
    const index_t n = router.router.extent(0), h = router.router.extent(1);
    const auto layout = [&](carver& memory) {
        return std::pair{memory.take<double>(n * h), memory.take<double>(n + h)};
    };
    carver counting(nullptr);
    layout(counting);
    carver memory(ctx.workspace(counting.used()));
    const auto [unit, rest] = layout(memory);
    double *length = rest, *d = rest + n;
    for (index_t i = 0; i < n; ++i) {
        double square = 0;
        for (index_t k = 0; k < h; ++k) {
            const auto w = static_cast<double>(to_accumulate(router.router(i, k)));
            unit[i * h + k] = w;
            square = gatefold::fma(w, w, square);
        }
        length[i] = gatefold::sqrt(square);
        for (index_t k = 0; k < h; ++k) unit[i * h + k] = share_of(unit[i * h + k], length[i]);
    }
    double value = 0;
    for (index_t i = 0; i < n; ++i) {
        for (index_t k = 0; k < h; ++k) d[k] = 0;
        for (index_t j = 0; j < n; ++j) {
            if (i == j) continue;
            const double cosine = dot<double>(unit + i * h, unit + j * h, h);
            value = gatefold::fma(cosine, cosine, value);
            add_scaled(d, 4 * cosine, unit + j * h, h);
        }
        const double along = dot<double>(d, unit + i * h, h);
        for (index_t k = 0; k < h; ++k) {
            const double step = router.loss.coefficient * (d[k] - gatefold::mul(along, unit[i * h + k]));
            router.router_gradient(i, k) += static_cast<A>(share_of(step, length[i]));
        }
    }
    return router.loss.coefficient * value;
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
