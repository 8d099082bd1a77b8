// One token through the router: logits to chosen experts, chosen experts to weights, and back.
//
//     z[N] ── choose_token ──> ids[S] ── chosen_scores ──> v[S] ── weigh_token ──> weights[S]
//                                        weights' gradient[S] ── token_backward ──> dz[N]
//
// Plain loops over one row; a wing may spread them over lanes, the arithmetic is that of router_math.hpp.
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

/// Whether no logit of the row is above -inf: then the lowest experts share.
template <class A>
GATEFOLD_HD GATEFOLD_INLINE bool is_undecided(const A* z, int n) {
    return !(largest(z, n) > -real_format<A>::infinity);
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

/// The selection keys of one token.
template <layer_type L, class A = typename L::accumulate_type>
GATEFOLD_HD GATEFOLD_INLINE void token_keys(const A* z, const A* selection_bias, A* keys) {
    A m = 0, total = 1;
    if constexpr (router_traits<L>::softmax_keys) {
        m = largest(z, L::choices);
        total = lane_sum<A>(L::choices, [&](int i) { return softmax_term(z[i], m); });
    }
    for (int i = 0; i < L::choices; ++i) keys[i] = key_of_logit<L>(z[i], m, total, selection_bias, i);
}

/// Marks the experts outside the kept groups: their word becomes that of key 0, or 0.
template <layer_type L, class A = typename L::accumulate_type>
GATEFOLD_HD GATEFOLD_INLINE void choose_in_groups(const A* keys, order_word<A>* best, std::int32_t* ids) {
    constexpr router_config r = L::c.router;
    constexpr int n = L::choices / r.groups;
    A group_key_of[std::size_t{r.groups}];
    for (int q = 0; q < r.groups; ++q) {
        if constexpr (r.group_by == group_key::share_sum) {
            order_word<A> words[std::size_t{group_terms(L::c)}];
            std::int32_t members[std::size_t{group_terms(L::c)}];
            const int count = best_of(
                n, group_terms(L::c), [&](int i) { return order_key(keys[q * n + i]); }, words, members);
            group_key_of[q] = 0;
            for (int j = 0; j < count; ++j) {
                const A key = keys[q * n + members[j]];
                group_key_of[q] += is_nan(key) ? -real_format<A>::infinity : key;
            }
            continue;
        }
        A first = -real_format<A>::infinity, second = first;
        for (int i = q * n; i < (q + 1) * n; ++i) {
            const A low = keys[i] > first ? first : keys[i];
            first = keys[i] > first ? keys[i] : first;
            second = low > second ? low : second;
        }
        group_key_of[q] = r.group_by == group_key::top2_sum ? first + second : first;
    }
    order_word<A> group_best[std::size_t{r.kept_groups}];
    std::int32_t kept[std::size_t{r.kept_groups}] = {};
    best_of(
        r.groups, r.kept_groups, [&](int q) { return order_key(group_key_of[q]); }, group_best, kept);
    bool is_kept[std::size_t{r.groups}] = {};
    for (int j = 0; j < r.kept_groups; ++j) is_kept[kept[j]] = true;
    best_of(
        L::choices, L::top_k,
        [&](int i) {
            if (is_kept[i / n]) return order_key(keys[i]);
            return r.masked == group_mask::zero ? order_key(A(0)) : order_word<A>(0);
        },
        best, ids);
}

/// The unbiased scores of the chosen, before they are divided by their sum; zero in empty slots and for experts that
/// return nothing. Where only ratios are asked these are exponentials.
template <layer_type L, class A = typename L::accumulate_type>
GATEFOLD_HD GATEFOLD_INLINE void chosen_scores(const A* z, const std::int32_t* ids, A* v) {
    using traits = router_traits<L>;
    constexpr router_config r = L::c.router;
    constexpr int S = L::slots;
    A m = -real_format<A>::infinity, total = 1;
    if constexpr (traits::over_chosen) {
        for (int s = 0; s < S; ++s)
            if (ids[s] >= 0 && z[ids[s]] > m) m = z[ids[s]];
        if constexpr (!traits::ratios_only)
            total = lane_sum<A>(S, [&](int s) { return ids[s] < 0 ? A(0) : softmax_term(z[ids[s]], m); });
    } else if constexpr (traits::whole_softmax) {
        m = largest(z, L::choices);
        total = lane_sum<A>(L::choices, [&](int i) { return softmax_term(z[i], m); });
    }
    for (int s = 0; s < S; ++s) {
        const std::int32_t e = ids[s];
        const bool returns = e >= 0 && (L::choices == traits::first_zero || e < traits::first_zero);
        v[s] = returns ? score_of_logit<L>(z[e], m, total) : A(0);
    }
    // Infinite scores share equally once they are divided by their sum.
    if constexpr (traits::unbounded_score && r.renorm != renormalise::none) {
        bool infinite = false;
        for (int s = 0; s < S; ++s) infinite = infinite || v[s] == real_format<A>::infinity;
        for (int s = 0; infinite && s < S; ++s) v[s] = v[s] == real_format<A>::infinity ? A(1) : A(0);
    }
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

/// Adds to dz the gradient of the logits for the gradient dw of the weights; `counts` as in weigh_token, `v` from
/// chosen_scores.
GATEFOLD_ANY_CALLABLE
template <layer_type L, class Scales, class Counts, class A = typename L::accumulate_type>
GATEFOLD_HD GATEFOLD_INLINE void token_backward(const A* z, const A* v, const std::int32_t* ids, const A* dw,
                                                double scale, float epsilon, const Scales* expert_scale, Counts counts,
                                                A* dz) {
    using traits = router_traits<L>;
    constexpr router_config r = L::c.router;
    constexpr int S = L::slots;
    A d[std::size_t{S}];  // by the scores of the chosen
    for (int s = 0; s < S; ++s)
        d[s] = ids[s] >= 0 && counts(s) ? scale_weight<L>(dw[s], scale, expert_scale, ids[s]) : A(0);
    A divisor = 1;
    if constexpr (r.renorm != renormalise::none) {
        constexpr A power = static_cast<A>(r.power);
        const A total = lane_sum<A>(S, [&](int s) { return counts(s) ? sum_term<r.renorm>(v[s], power) : A(0); });
        divisor = divisor_of<r.renorm>(total, static_cast<A>(epsilon));
        if constexpr (r.renorm == renormalise::norm) divisor = root_of(total, power);
        const A along = lane_sum<A>(S, [&](int s) { return mul(d[s], share_of(v[s], divisor)); });
        const bool moves = divisor_moves<r.renorm>(total, static_cast<A>(epsilon));
        for (int s = 0; s < S; ++s) {
            A through = moves ? d[s] - along : d[s];
            if constexpr (r.renorm == renormalise::norm) through = d[s] - mul(along, norm_slope(v[s], divisor, power));
            d[s] = ids[s] >= 0 && counts(s) ? share_of(through, divisor) : A(0);
        }
    }
    const auto returns_nothing = [&](std::int32_t e) {
        return L::choices > traits::first_zero && e >= traits::first_zero;
    };
    if constexpr (traits::ratios_only) {
        // v is an exponential: its derivative is itself.
        for (int s = 0; s < S; ++s)
            if (ids[s] >= 0 && !returns_nothing(ids[s])) dz[ids[s]] += mul(v[s], d[s]);
    } else if constexpr (traits::over_chosen || traits::whole_softmax) {
        // What an expert that returns nothing takes of the softmax is a weight nobody uses.
        const A along = lane_sum<A>(S, [&](int s) { return mul(v[s], d[s]); });
        if constexpr (traits::over_chosen) {
            A m = -real_format<A>::infinity;
            for (int s = 0; s < S; ++s)
                if (ids[s] >= 0 && z[ids[s]] > m) m = z[ids[s]];
            const A total = lane_sum<A>(S, [&](int s) { return ids[s] < 0 ? A(0) : softmax_term(z[ids[s]], m); });
            for (int s = 0; s < S; ++s) {
                if (ids[s] < 0) continue;
                const A p = share_of(softmax_term(z[ids[s]], m), total);
                dz[ids[s]] += mul(p, returns_nothing(ids[s]) ? -along : d[s] - along);
            }
        } else {
            const A m = largest(z, L::choices);
            const A total = lane_sum<A>(L::choices, [&](int i) { return softmax_term(z[i], m); });
            for (int i = 0; i < L::choices; ++i) dz[i] -= mul(softmax_term(z[i], m) / total, along);
            for (int s = 0; s < S; ++s)
                if (ids[s] >= 0 && !returns_nothing(ids[s]))
                    dz[ids[s]] += mul(softmax_term(z[ids[s]], m) / total, d[s]);
        }
    } else {
        for (int s = 0; s < S; ++s)
            if (ids[s] >= 0 && !returns_nothing(ids[s])) dz[ids[s]] += mul(d[s], score_slope<r.from>(z[ids[s]]));
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER
