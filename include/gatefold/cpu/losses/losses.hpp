// Balancing losses on the CPU: counts and means of a group of tokens, gradients of logits.
//
//     logits[T,N] ──> p[T,N] ──> mean P[N], counts f[N] ──> value = Σ c f P ──> dp = c f / T ──> dz, added to the tape
//
// Everything is double: sums over many tokens in single precision would lose the digits that balance is about.
#pragma once

#include <cstdint>

#include <gatefold/cpu/losses/probabilities.hpp>
#include <gatefold/cpu/losses/regularisers.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Calls f(expert) for every expert that counts for one token.
template <class Loss, layer_type L, class F>
void for_each_counted(const Loss& loss, const double* p, const std::int32_t* ids, F&& f) {
    using losses::counted;
    constexpr int n = L::choices, k = Loss::counts == counted::best ? 1 : L::slots;
    if constexpr (Loss::counts == counted::slots) {
        for (int s = 0; s < k; ++s)
            if (ids[s] >= 0) f(ids[s]);
    } else if constexpr (Loss::counts == counted::members) {
        for (int s = 0; s < k; ++s) {
            bool again = ids[s] < 0;
            for (int earlier = 0; earlier < s; ++earlier) again = again || ids[earlier] == ids[s];
            if (!again) f(ids[s]);
        }
    } else if constexpr (Loss::counts == counted::devices) {
        const int size = n / loss.devices;
        for (int d = 0; d < loss.devices; ++d) {
            bool sent = false;
            for (int s = 0; s < k; ++s) sent = sent || (ids[s] >= 0 && ids[s] / size == d);
            for (int i = d * size; sent && i < (d + 1) * size; ++i) f(i);
        }
    } else if constexpr (Loss::counts != counted::given) {
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

/// Counts that do not come from the tokens of the call, or that experts share.
template <class Loss>
void settle_counts(const Loss& loss, double valid, int n, double* counts) {
    if constexpr (Loss::counts == losses::counted::given) {
        double total = 0;
        for (const index_t count : loss.chosen) total += static_cast<double>(count);
        for (int i = 0; i < n; ++i) counts[i] = total > 0 ? static_cast<double>(loss.chosen[i]) / total * valid : 0;
    } else if constexpr (Loss::counts == losses::counted::slots && has_devices<Loss>) {
        const int size = n / loss.devices;
        for (int first = 0; first < n; first += size) {
            double sum = 0;
            for (int i = first; i < first + size; ++i) sum += counts[i];
            for (int i = first; i < first + size; ++i) counts[i] = sum / size;
        }
    }
}

/// A loss of the form Σ c_i P_i over tokens [first, last), times `share`.
template <class Loss, layer_type L>
double add_linear_part(context<cpu>& ctx, const Loss& loss, const stacked_tokens<L>& tokens,
                       const token_probabilities<L>& all, index_t first, index_t last, double share) {
    constexpr int n = L::choices;
    const double valid = tokens.valid(first, last);
    if (valid == 0) return 0;
    double counts[std::size_t{n}] = {}, mean[std::size_t{n}] = {};
    for (index_t t = first; t < last; ++t) {
        if (!tokens.counts(t)) continue;
        const double* p = all.p + t * n;
        for_each_counted<Loss, L>(loss, p, tokens.ids(t), [&](std::int32_t e) { counts[e] += 1; });
        for (int i = 0; i < n; ++i) mean[i] += p[i];
    }
    settle_counts(loss, valid, n, counts);
    const double factor = share * loss.factor(n, L::top_k) / valid / valid;
    double value = 0;
    for (int i = 0; i < n; ++i) {
        counts[i] = gatefold::mul(counts[i], factor);
        value = gatefold::fma(counts[i], mean[i], value);
    }
    const int parts = static_cast<int>(last - first < ctx.threads() ? last - first : ctx.threads());
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(last - first, part, parts);
        for (index_t t = first + mine.begin; t < first + mine.end; ++t)
            if (tokens.counts(t))
                probabilities_backward<L>(tokens.logits(t), all.p + t * n, all.sums[t], counts, tokens.gradient(t));
    });
    return value;
}

template <class Loss, layer_type L>
double add_loss(context<cpu>& ctx, const Loss& loss, tape<L>* const* tapes, int count, const batch<L>& in) {
    if constexpr (requires { loss.router_gradient; }) {
        return add_orthogonality(ctx, loss);
    } else {
        const index_t each = tapes[0]->tokens();
        if (each == 0) return 0;
        const stacked_tokens<L> tokens{tapes, each, each * count, in, in.first_token};
        if constexpr (requires { Loss::counts; }) {
            const token_probabilities<L> all(ctx, tokens);
            const auto part = [&](index_t first, index_t last, double share) {
                return add_linear_part(ctx, loss, tokens, all, first, last, share);
            };
            if constexpr (!Loss::by_group)
                return part(0, tokens.all, 1.0);
            else if constexpr (has_group<Loss>)
                return mean_over_groups(tokens, loss.group, part);
            else
                return mean_over_groups(tokens, 0, part);
        } else {
            return add_to(ctx, loss, tokens);
        }
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
