// What losses and statistics see of a token: probabilities p that sum to one, in double precision.
#pragma once

#include <cstddef>

#include <gatefold/moe/layer.hpp>
#include <gatefold/moe/router_math.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// Scores that depend on one logit alone are divided by their sum; everything else is a softmax.
template <layer_type L>
inline constexpr bool has_own_score =
    L::c.router.from == score::sigmoid || L::c.router.from == score::sqrt_softplus || L::c.router.from == score::relu;
inline constexpr double smallest_sum = 1e-20;

/// p of one token. Returns the sum that the scores were divided by, or 0 for a softmax that has no gradient.
template <layer_type L>
double probabilities(const typename L::accumulate_type* logits, double* p) {
    constexpr int n = L::choices;
    double sum = 0;
    if constexpr (has_own_score<L>) {
        for (int i = 0; i < n; ++i) sum += p[i] = score_of<L::c.router.from>(static_cast<double>(logits[i]));
        sum += smallest_sum;
        for (int i = 0; i < n; ++i) p[i] /= sum;
    } else {
        double z[std::size_t{n}];
        for (int i = 0; i < n; ++i) z[i] = static_cast<double>(logits[i]);
        const double m = largest(z, n);
        // A row without a finite logit has no gradient and counts as undecided: evenly spread.
        if (!(m > minus_infinity<double>)) {
            for (int i = 0; i < n; ++i) p[i] = 1.0 / n;
            return 0;
        }
        for (int i = 0; i < n; ++i) sum += p[i] = softmax_term(z[i], m);
        for (int i = 0; i < n; ++i) p[i] /= sum;
    }
    return sum;
}

/// Adds to d_logits what a gradient dp of p amounts to.
template <layer_type L>
void probabilities_backward(const typename L::accumulate_type* logits, const double* p, double sum, const double* dp,
                            typename L::accumulate_type* d_logits) {
    using A = typename L::accumulate_type;
    constexpr int n = L::choices;
    if (sum == 0) return;
    double along = 0;
    for (int i = 0; i < n; ++i) along = gatefold::fma(dp[i], p[i], along);
    for (int i = 0; i < n; ++i) {
        double d;
        if constexpr (has_own_score<L>)
            d = gatefold::mul((dp[i] - along) / sum, score_slope<L::c.router.from>(static_cast<double>(logits[i])));
        else
            d = gatefold::mul(p[i], dp[i] - along);
        d_logits[i] += static_cast<A>(d);
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER
