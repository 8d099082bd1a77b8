// The routing of many forward calls in one set of figures: what a training loop prints every hundred steps.
//
//     routing_window<L> window(ctx);   forward(…, tape);   window.add(tape, in);   …   window.metrics();
//     window.clear();
//
// Works on what is on the tape already; a call costs about as much as a loss.
#pragma once

#include <cmath>
#include <cstdint>

#include <gatefold/core/tensor.hpp>
#include <gatefold/moe/capacity.hpp>
#include <gatefold/moe/losses_probabilities.hpp>
#include <gatefold/moe/stats.hpp>
#include <gatefold/moe/tape.hpp>

namespace gatefold::inline v0 {

/// The figures of a window.
struct routing_metrics {
    index_t steps = 0, tokens = 0;   ///< calls, and tokens without padding
    balance_metrics load;            ///< of how often experts were chosen, dropped pairs included
    balance_metrics importance;      ///< of the sums of weights
    double batch_violation = 0;      ///< mean over calls of the call's own max_violation
    double utilisation_entropy = 0;  ///< entropy of the mean probabilities, divided by log N
    double confidence_entropy = 0;   ///< mean entropy of a token's probabilities, divided by log N
    double experts_per_token = 0;    ///< choices per token
    double drop_rate = 0;            ///< share of the choices that exceeded a capacity
    double usage = 0;                ///< filled places / all places; 0 without a capacity
    double logit_rms = 0, logit_max = 0;
};

/// Sums over the forward calls since the last clear(), for layer L on the CPU.
template <layer_type L>
struct routing_window {
    static_assert(!L::is_dense, "gatefold::routing_window: a dense layer has no routing to look at");
    static constexpr int N = L::choices;

    tensor<index_t, N> counts, call_counts;  ///< choices of each expert: of the window, of the last call
    tensor<double, N> weights;               ///< sums of weights
    tensor<double, N> probabilities;         ///< sums of probabilities
    tensor<index_t, N, N> together;          ///< tokens that chose both
    index_t steps = 0, tokens = 0, chosen = 0, dropped = 0, places = 0;
    double entropies = 0, violations = 0, logit_squares = 0, logit_max = 0;

    GATEFOLD_INLINE explicit routing_window(context<cpu>& ctx)
        : counts(make_tensor<index_t, N>(ctx)),
          call_counts(make_tensor<index_t, N>(ctx)),
          weights(make_tensor<double, N>(ctx)),
          probabilities(make_tensor<double, N>(ctx)),
          together(make_tensor<index_t, N, N>(ctx)) {
        clear();
    }

    GATEFOLD_INLINE void clear();
    /// Adds the call that filled the tape, made with the batch `in` and the options `o`.
    GATEFOLD_INLINE void add(tape<L>& saved, const batch<L>& in = {}, const options<L>& o = {});
    GATEFOLD_INLINE routing_metrics metrics() const;

    /// P(j | i): the share of the tokens with expert i that have expert j too.
    GATEFOLD_INLINE double co_activation(int i, int j) const {
        require(i >= 0 && i < N && j >= 0 && j < N, "co_activation", "expert", "an index below the number of experts",
                i < 0 || i >= N ? i : j);
        return counts(i) == 0 ? 0 : static_cast<double>(together(i, j)) / static_cast<double>(counts(i));
    }
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// Places that the capacity gave the tokens of one call.
template <layer_type L>
index_t capacity_places(const batch<L>& in, const options<L>& o, index_t tokens, index_t largest_load) {
    constexpr capacity_config c = L::c.capacity;
    const auto places = [&](index_t group) {
        return L::choices * capacity_of(c, o.capacity_factor, group, L::choices, L::top_k, o.training, largest_load);
    };
    if constexpr (c.rule == capacity_rule::none) {
        return 0;
    } else if constexpr (c.shared_by == capacity_group::sequence) {
        index_t sum = 0;
        const index_t n = in.sequence_starts.extent(0);
        for (index_t i = 0; i < n; ++i)
            sum += places((i + 1 < n ? in.sequence_starts[i + 1] : static_cast<std::int32_t>(tokens)) -
                          in.sequence_starts[i]);
        return sum;
    } else if constexpr (c.shared_by == capacity_group::fixed) {
        index_t sum = 0;
        for (index_t first = 0; first < tokens; first += c.group_size)
            sum += places(tokens - first < c.group_size ? tokens - first : c.group_size);
        return sum;
    } else {
        return places(tokens);
    }
}

template <layer_type L>
void add_call(routing_window<L>& w, tape<L>& saved, const batch<L>& in, const options<L>& o) {
    constexpr int n = L::choices, k = L::slots;
    const index_t tokens = saved.tokens();
    require(!in.mask.data() || in.mask.extent(0) == tokens, "routing_window::add", "mask", tokens, in.mask.extent(0));
    if constexpr (L::c.capacity.shared_by == capacity_group::sequence)
        require(in.sequence_starts.data() || tokens == 0, "routing_window::add", "sequence_starts",
                "the first token of each sequence", "none");
    const routing_view<L> routing = saved.routing();
    const plan_view<cpu> plan = saved.plan();
    for (int i = 0; i < n; ++i) w.call_counts.data()[i] = 0;
    for (index_t t = 0; t < tokens; ++t) {
        if (in.mask.data() && in.mask[t] == 0) continue;
        ++w.tokens;
        const std::int32_t* ids = routing.ids.row(t);
        for (int s = 0; s < k; ++s) {
            if (ids[s] < 0) continue;
            ++w.call_counts.data()[ids[s]];
            ++w.chosen;
            w.dropped += plan.place[t * k + s] < 0 ? 1 : 0;
            w.weights.data()[ids[s]] += static_cast<double>(routing.weights(t, s));
            for (int other = 0; other < k; ++other)
                if (other != s && ids[other] >= 0) ++w.together.data()[index_t{ids[s]} * n + ids[other]];
        }
        double p[std::size_t{n}], entropy = 0;
        probabilities<L>(routing.logits.row(t), p);
        for (int i = 0; i < n; ++i) {
            w.probabilities.data()[i] += p[i];
            if (p[i] > 0) entropy -= p[i] * std::log(p[i]);
            const auto z = static_cast<double>(routing.logits(t, i));
            if (!(std::fabs(z) < real_format<double>::infinity)) continue;
            w.logit_squares += z * z;
            w.logit_max = std::fabs(z) > w.logit_max ? std::fabs(z) : w.logit_max;
        }
        w.entropies += entropy;
    }
    index_t largest_load = 0;
    for (int i = 0; i < n; ++i) {
        const index_t c = w.call_counts.data()[i];
        w.counts.data()[i] += c;
        largest_load = c > largest_load ? c : largest_load;
    }
    w.places += capacity_places<L>(in, o, tokens, largest_load);
    w.violations += balance_of(view<const index_t, dyn>(w.call_counts.data(), {n})).max_violation;
    ++w.steps;
}

template <layer_type L>
routing_metrics metrics_of(const routing_window<L>& w) {
    constexpr index_t n = L::choices;
    routing_metrics m;
    m.steps = w.steps;
    m.tokens = w.tokens;
    m.load = balance_of<index_t>({w.counts.data(), {n}});
    m.importance = balance_of<double>({w.weights.data(), {n}});
    if (w.tokens == 0) return m;
    const auto tokens = static_cast<double>(w.tokens), chosen = static_cast<double>(w.chosen);
    m.batch_violation = w.violations / static_cast<double>(w.steps);
    m.utilisation_entropy = balance_of<double>({w.probabilities.data(), {n}}).entropy;
    m.confidence_entropy = w.entropies / tokens / std::log(static_cast<double>(n));
    m.experts_per_token = chosen / tokens;
    m.drop_rate = w.chosen > 0 ? static_cast<double>(w.dropped) / chosen : 0;
    m.usage = w.places > 0 ? static_cast<double>(w.chosen - w.dropped) / static_cast<double>(w.places) : 0;
    m.logit_rms = std::sqrt(w.logit_squares / (tokens * static_cast<double>(n)));
    m.logit_max = w.logit_max;
    return m;
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0 {

template <layer_type L>
GATEFOLD_INLINE void routing_window<L>::clear() {
    const auto zero = [](auto& t) {
        for (index_t i = 0; i < t.size(); ++i) t.data()[i] = 0;
    };
    zero(counts);
    zero(call_counts);
    zero(weights);
    zero(probabilities);
    zero(together);
    steps = tokens = chosen = dropped = places = 0;
    entropies = violations = logit_squares = logit_max = 0;
}
template <layer_type L>
GATEFOLD_INLINE void routing_window<L>::add(tape<L>& saved, const batch<L>& in, const options<L>& o) {
    detail::add_call(*this, saved, in, o);
}
template <layer_type L>
GATEFOLD_INLINE routing_metrics routing_window<L>::metrics() const {
    return detail::metrics_of(*this);
}

}  // namespace gatefold::inline v0
