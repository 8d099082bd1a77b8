// One token through the router: what a logit is as a key and as a score, and scores to weights.
//
//     z[N] ── key_of_logit ──> the best ──> ids[S] ── score_of_logit ──> v[S] ── weigh_token ──> weights[S]
//
// Plain loops over the slots of a token; each wing spreads rows of N over its lanes, with the arithmetic of
// router_math.hpp.
#pragma once

#include <cstddef>

#include <gatefold/core/random.hpp>
#include <gatefold/moe/call.hpp>
#include <gatefold/moe/router_math.hpp>

namespace gatefold::inline v0::detail {

/// What a layer's router configuration means for its code.
template <layer_type L>
struct router_traits {
    static constexpr router_config r = L::c.router;
    static constexpr int N = L::choices, S = L::slots;
    /// Softmax of which only ratios among the chosen are asked: no sum over all experts is needed.
    static constexpr bool ratios_only = r.from == score::softmax && r.renorm == renormalise::sum &&
                                        r.scores_in == precision::accumulate && r.second == second_expert::always &&
                                        !L::c.capacity.renormalise_kept;
    static constexpr bool over_chosen = r.from == score::softmax_selected || ratios_only;
    static constexpr bool whole_softmax = r.from == score::softmax && !ratios_only;
    static constexpr bool softmax_keys = r.from == score::softmax && !selects_by_logit(L::c);
    static constexpr bool unbounded_score =
        r.from == score::sqrt_softplus || r.from == score::identity || r.from == score::relu;
    /// Whether ids depend on all tokens of the batch.
    static constexpr bool by_batch =
        r.select == selection::sinkhorn || r.select == selection::balanced || r.select == selection::expert_choice;
    /// Whether a token's second expert may be turned away after its weight is known.
    static constexpr bool judges_second = r.second == second_expert::threshold || r.second == second_expert::random ||
                                          r.second == second_expert::random_score;
    /// Choices from here on return nothing, whatever their weight: it is zero.
    static constexpr int first_zero = L::experts + L::c.free.constant + L::c.free.copy;
};

}  // namespace gatefold::inline v0::detail

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// A weight times its scales: the constant one where it acts on weights, and the expert's own; null: none.
template <layer_type L, class Scales>
GATEFOLD_HD GATEFOLD_INLINE auto scale_weight(typename L::accumulate_type w, double scale, const Scales* expert_scale,
                                              std::int32_t e) {
    using A = typename L::accumulate_type;
    if constexpr (L::c.router.scaled == scale_at::weights) w = mul(w, static_cast<A>(scale));
    if constexpr (L::c.router.expert_scale)
        if (expert_scale) w = mul(w, to_accumulate(expert_scale[e]));
    return w;
}

/// The indices of the k largest words, largest first, equal ones by index; a word of 0 is never taken. Unused ids are
/// -1.
GATEFOLD_ANY_CALLABLE
template <class Word, class WordOf>
GATEFOLD_HD GATEFOLD_INLINE int best_of(int n, int k, WordOf word_of, Word* best, std::int32_t* ids) {
    int count = 0;
    for (int i = 0; i < n; ++i) {
        const Word word = word_of(i);
        if (word == 0 || (count == k && word <= best[k - 1])) continue;
        int at = count < k ? count++ : k - 1;
        for (; at > 0 && best[at - 1] < word; --at) {
            best[at] = best[at - 1];
            ids[at] = ids[at - 1];
        }
        best[at] = word;
        ids[at] = i;
    }
    for (int s = count; s < k; ++s) ids[s] = -1;
    return count;
}

/// The selection key of expert i with the logit z; m and total are those of a softmax, where keys are one.
template <layer_type L, class A = typename L::accumulate_type>
GATEFOLD_HD GATEFOLD_INLINE A key_of_logit(A z, A m, A total, const A* selection_bias, int i) {
    using traits = router_traits<L>;
    constexpr router_config r = L::c.router;
    A key = z;
    if constexpr (traits::softmax_keys)
        key = softmax_term(z, m) / total;
    else if constexpr (!selects_by_logit(L::c))
        key = score_of<r.from>(z);
    if constexpr (!selects_by_logit(L::c) && r.scores_in == precision::storage)
        key = to_accumulate(from_accumulate<typename L::value_type>(key));
    if constexpr (r.selection_bias != key_bias::none) key += selection_bias[i];
    return is_nan(z) ? -real_format<A>::infinity : key;
}

/// The score of a chosen expert with the logit z, before scores are divided by their sum; m and total are those of the
/// softmax, where there is one.
template <layer_type L, class A = typename L::accumulate_type>
GATEFOLD_HD GATEFOLD_INLINE A score_of_logit(A z, A m, A total) {
    using traits = router_traits<L>;
    A score = 0;
    if constexpr (traits::ratios_only)
        score = softmax_term(z, m);
    else if constexpr (traits::over_chosen || traits::whole_softmax)
        score = share_of(softmax_term(z, m), total);
    else
        score = score_of<L::c.router.from>(z);
    if constexpr (L::c.router.scores_in == precision::storage)
        score = to_accumulate(from_accumulate<typename L::value_type>(score));
    return score;
}

/// Whether the second expert of a token stays: w its weight, v its score.
template <layer_type L, class A = typename L::accumulate_type>
GATEFOLD_HD GATEFOLD_INLINE bool second_stays(A w, A v, A threshold, bool training, const counter_rng& draw,
                                              index_t token) {
    constexpr second_expert second = L::c.router.second;
    // Weights that are divided after the choice are judged by the score.
    const A judged = second == second_expert::random_score || L::c.capacity.renormalise_kept ? v : w;
    if constexpr (second == second_expert::threshold) return judged > threshold;
    if (!training) return true;
    return draw.template uniform_from_zero<A>(purpose::second_expert, token, 0) < judged / threshold;
}

/// The weights of the chosen. Slots with `counts(s)` false get weight zero and stay out of the sum.
GATEFOLD_ANY_CALLABLE
template <layer_type L, class Scales, class Counts, class A = typename L::accumulate_type>
GATEFOLD_HD GATEFOLD_INLINE void weigh_token(const A* v, const std::int32_t* ids, double scale, float epsilon,
                                             const Scales* expert_scale, Counts counts, A* weights) {
    constexpr renormalise how = L::c.router.renorm;
    A divisor = 1;
    constexpr A power = static_cast<A>(L::c.router.power);
    if constexpr (how != renormalise::none)
        divisor =
            divisor_of<how>(lane_sum<A>(L::slots, [&](int s) { return counts(s) ? sum_term<how>(v[s], power) : A(0); }),
                            static_cast<A>(epsilon));
    if constexpr (how == renormalise::norm) divisor = root_of(divisor, power);
    for (int s = 0; s < L::slots; ++s) {
        A w = 0;
        if (ids[s] >= 0 && counts(s))
            w = scale_weight<L>(how == renormalise::none ? v[s] : share_of(v[s], divisor), scale, expert_scale, ids[s]);
        weights[s] = w;
    }
}

/// The weights of a token without a logit above -inf: equal, and constant for the gradient.
template <layer_type L, class Scales, class A = typename L::accumulate_type>
GATEFOLD_HD GATEFOLD_INLINE void weigh_undecided(const std::int32_t* ids, double scale, const Scales* expert_scale,
                                                 A* weights) {
    constexpr int first_zero = router_traits<L>::first_zero;
    int count = 0;
    for (int s = 0; s < L::slots; ++s) count += ids[s] >= 0 ? 1 : 0;
    for (int s = 0; s < L::slots; ++s)
        weights[s] = ids[s] < 0 || (L::choices > first_zero && ids[s] >= first_zero)
                         ? A(0)
                         : scale_weight<L>(A(1) / static_cast<A>(count), scale, expert_scale, ids[s]);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER
