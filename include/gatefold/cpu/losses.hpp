// Balancing losses on the CPU: probabilities of every token, counts and means of a group of tokens, gradients of
// logits.
//
//     logits[T,N] ──> p[T,N] ──> mean P[N], counts f[N] ──> value = Σ c f P ──> dp = c f / T ──> dz, added to the tape
//
// Everything is double: sums over many tokens in single precision would lose the digits that balance is about.
#pragma once

#include <cstdint>

#include <gatefold/core/workspace.hpp>
#include <gatefold/cpu/rows.hpp>
#include <gatefold/moe/losses.hpp>
#include <gatefold/moe/router_math.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Scores that depend on one logit alone are divided by their sum; everything else is a softmax.
template <layer_type L>
inline constexpr bool has_own_score =
    L::c.router.from == score::sigmoid || L::c.router.from == score::sqrt_softplus || L::c.router.from == score::relu;
inline constexpr double smallest_sum = 1e-20;

/// p of one token. Returns the sum that the scores were divided by, or the log of the sum of exponentials.
template <layer_type L>
double probabilities(const typename L::accumulate_type* logits, double* p) {
    constexpr int n = L::choices;
    double sum = 0;
    if constexpr (has_own_score<L>) {
        for (int i = 0; i < n; ++i) sum += p[i] = score_of<L::c.router.from>(static_cast<double>(logits[i]));
        sum += smallest_sum;
        for (int i = 0; i < n; ++i) p[i] /= sum;
        return sum;
    } else {
        double z[std::size_t{n}];
        for (int i = 0; i < n; ++i) z[i] = static_cast<double>(logits[i]);
        const double m = largest(z, n);
        for (int i = 0; i < n; ++i) sum += p[i] = softmax_term(z[i], m);
        // A row without a finite logit has no gradient and counts as undecided: evenly spread.
        if (!(sum > 0)) {
            for (int i = 0; i < n; ++i) p[i] = 1.0 / n;
            return 0;
        }
        for (int i = 0; i < n; ++i) p[i] /= sum;
        return m + gatefold::log(sum);
    }
}

/// Adds to d_logits what a gradient dp of p amounts to.
template <layer_type L>
void probabilities_backward(const typename L::accumulate_type* logits, const double* p, double sum, const double* dp,
                            typename L::accumulate_type* d_logits) {
    using A = typename L::accumulate_type;
    constexpr int n = L::choices;
    double along = 0;
    for (int i = 0; i < n; ++i) along += gatefold::mul(dp[i], p[i]);
    for (int i = 0; i < n; ++i) {
        double d;
        if constexpr (has_own_score<L>)
            d = gatefold::mul((dp[i] - along) / sum, score_slope<L::c.router.from>(static_cast<double>(logits[i])));
        else
            d = gatefold::mul(p[i], dp[i] - along);
        d_logits[i] += static_cast<A>(d);
    }
}

/// Calls f(expert) for every choice of one token that counts.
template <losses::counted Counted, layer_type L, class F>
void for_each_counted(const double* p, const std::int32_t* ids, F&& f) {
    constexpr int n = L::choices, k = Counted == losses::counted::best ? 1 : L::slots;
    if constexpr (Counted == losses::counted::slots) {
        for (int s = 0; s < k; ++s)
            if (ids[s] >= 0) f(ids[s]);
    } else {
        std::uint8_t taken[std::size_t{n}] = {};
        for (int s = 0; s < k; ++s) {
            int best = -1;
            for (int i = 0; i < n; ++i)
                if (!taken[i] && (best < 0 || p[i] > p[best])) best = i;
            taken[best] = 1;
            f(best);
        }
    }
}

/// One token of a stack of tapes.
template <layer_type L>
struct stacked_tokens {
    tape<L>* const* tapes;
    index_t each;
    const std::uint8_t* mask;

    index_t tape_of(index_t t) const { return t / each; }
    index_t row(index_t t) const { return t % each; }
    double weight(index_t t) const { return !mask || mask[row(t)] ? 1 : 0; }
    const typename L::accumulate_type* logits(index_t t) const {
        return tapes[tape_of(t)]->routing().logits.data() + row(t) * L::choices;
    }
    const std::int32_t* ids(index_t t) const { return tapes[tape_of(t)]->routing().ids.data() + row(t) * L::slots; }
    typename L::accumulate_type* gradient(index_t t) const {
        return tapes[tape_of(t)]->logit_gradients().data() + row(t) * L::choices;
    }
};

/// A loss of the form Σ c_i P_i over tokens [first, last), times `share`.
template <class Loss, layer_type L>
double add_linear_part(context<cpu>& ctx, const Loss& loss, const stacked_tokens<L>& tokens, const double* p,
                       const double* sums, index_t first, index_t last, double share) {
    constexpr int n = L::choices;
    double valid = 0, counts[std::size_t{n}] = {}, mean[std::size_t{n}] = {};
    for (index_t t = first; t < last; ++t) {
        if (tokens.weight(t) == 0) continue;
        valid += 1;
        for_each_counted<Loss::counts, L>(p + t * n, tokens.ids(t), [&](std::int32_t e) { counts[e] += 1; });
        for (int i = 0; i < n; ++i) mean[i] += p[t * n + i];
    }
    if (valid == 0) return 0;
    const double factor = share * loss.factor(n, L::top_k) / valid / valid;
    double value = 0;
    for (int i = 0; i < n; ++i) {
        counts[i] *= factor;
        value += gatefold::mul(counts[i], mean[i]);
    }
    const int parts = static_cast<int>(last - first < ctx.threads() ? last - first : ctx.threads());
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(last - first, part, parts);
        for (index_t t = first + mine.begin; t < first + mine.end; ++t)
            if (tokens.weight(t) != 0)
                probabilities_backward<L>(tokens.logits(t), p + t * n, sums[t], counts, tokens.gradient(t));
    });
    return value;
}

template <class Loss, layer_type L>
double add_loss(context<cpu>& ctx, const Loss& loss, tape<L>* const* tapes, int count, const batch<L>& in) {
    using A = typename L::accumulate_type;
    constexpr int n = L::choices;
    const index_t each = tapes[0]->tokens(), all = each * count;
    if (all == 0) return 0;
    const stacked_tokens<L> tokens{tapes, each, in.mask.data()};

    if constexpr (std::is_same_v<Loss, losses::z_loss>) {
        double valid = 0, value = 0;
        for (index_t t = 0; t < all; ++t) valid += tokens.weight(t);
        if (valid == 0) return 0;
        for (index_t t = 0; t < all; ++t) {
            if (tokens.weight(t) == 0) continue;
            double z[std::size_t{n}], p[std::size_t{n}], sum = 0;
            for (int i = 0; i < n; ++i) z[i] = static_cast<double>(tokens.logits(t)[i]);
            const double m = largest(z, n);
            for (int i = 0; i < n; ++i) sum += p[i] = softmax_term(z[i], m);
            const double lse = m + gatefold::log(sum), step = loss.coefficient / valid;
            value += gatefold::mul(step, gatefold::mul(lse, lse));
            for (int i = 0; i < n; ++i)
                tokens.gradient(t)[i] += static_cast<A>(gatefold::mul(2 * step * lse, p[i] / sum));
        }
        return value;
    } else {
        const auto layout = [&](carver memory) {
            double* p = memory.template take<double>(all * n);
            double* sums = memory.template take<double>(all);
            return std::pair{p, std::pair{sums, memory.used()}};
        };
        const std::size_t bytes = layout(carver(nullptr)).second.second;
        const auto [p, rest] = layout(carver(ctx.workspace(bytes)));
        double *probability = p, *sums = rest.first;
        const int parts = static_cast<int>(all < ctx.threads() ? all : ctx.threads());
        ctx.parallel(parts, [&](int part) {
            const range mine = part_of(all, part, parts);
            for (index_t t = mine.begin; t < mine.end; ++t)
                sums[t] = probabilities<L>(tokens.logits(t), probability + t * n);
        });
        if (!Loss::by_sequence || !in.sequence_starts.data())
            return add_linear_part(ctx, loss, tokens, probability, sums, 0, all, 1);
        const index_t sequences = in.sequence_starts.extent(0);
        double value = 0;
        for (int i = 0; i < count; ++i)
            for (index_t s = 0; s < sequences; ++s) {
                const index_t first = in.sequence_starts[s],
                              last = s + 1 < sequences ? in.sequence_starts[s + 1] : each;
                value += add_linear_part(ctx, loss, tokens, probability, sums, i * each + first, i * each + last,
                                         1.0 / static_cast<double>(sequences * count));
            }
        return value;
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
