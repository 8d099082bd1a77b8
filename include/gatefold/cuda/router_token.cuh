// One token through the router by one warp: lane l holds the logits l, l + 32, ... and the slots l, l + 32, ...
//
//     logits[N] ── keys ── groups ──> S rounds of (largest word, lowest expert) ──> scores of the chosen ──> weights
//
// The arithmetic is that of moe/router_math.hpp, whose sums have the order of a warp: ids and weights are those of the
// CPU wing, bit for bit.
#pragma once

#include <gatefold/core/random.hpp>
#include <gatefold/cuda/device.cuh>
#include <gatefold/moe/router_mixer.hpp>
#include <gatefold/moe/router_token.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// The part of a configuration that the router's kernels are compiled for, as scalars: a kernel's template argument
/// holds no class. Layers that differ in their experts only share these kernels. It stands for the layer in the
/// functions of moe/router_token.hpp.
template <class T, class R, int Hidden, int Experts, int Constants, int Copies, int Zeros, int TopK, int Slots,
          projection Logits, bool LogitBias, bool LogitsStored, bool Normalised, selection Select, score From,
          bool ScoresStored, key_bias SelectionBias, int Groups, int KeptGroups, group_key GroupBy, group_mask Masked,
          second_expert Second, renormalise Renorm, scale_at Scaled, bool ExpertScale, bool RenormaliseKept>
struct router_policy {
    using value_type = T;
    using accumulate_type = accumulate_t<T>;
    using router_type = R;
    static constexpr int hidden = Hidden, experts = Experts, top_k = TopK, slots = Slots;
    static constexpr int choices = Experts + Constants + Copies + Zeros;
    static constexpr config c = {
        .hidden = Hidden,
        .experts = Experts,
        .top_k = TopK,
        .router = {.logits = Logits,
                   .logits_in = LogitsStored ? precision::storage : precision::accumulate,
                   .scores_in = ScoresStored ? precision::storage : precision::accumulate,
                   .bias = LogitBias,
                   .transform = Normalised ? logit_transform::normalised : logit_transform::none,
                   .select = Select,
                   .from = From,
                   .selection_bias = SelectionBias,
                   .groups = Groups,
                   .kept_groups = KeptGroups,
                   .group_by = GroupBy,
                   .masked = Masked,
                   .second = Second,
                   .renorm = Renorm,
                   .scaled = Scaled,
                   .expert_scale = ExpertScale},
        .capacity = {.renormalise_kept = RenormaliseKept},
        .free = {.constant = Constants, .copy = Copies, .zero = Zeros}};
};

template <layer_type L>
using policy_of =
    router_policy<typename L::value_type, typename L::router_type, L::hidden, L::experts, L::c.free.constant,
                  L::c.free.copy, L::c.free.zero, L::top_k, L::slots, L::c.router.logits, L::c.router.bias,
                  L::c.router.logits_in == precision::storage, L::c.router.transform == logit_transform::normalised,
                  L::c.router.select, L::c.router.from, L::c.router.scores_in == precision::storage,
                  L::c.router.selection_bias, L::c.router.groups, L::c.router.kept_groups, L::c.router.group_by,
                  L::c.router.masked, L::c.router.second, L::c.router.renorm, L::c.router.scaled,
                  L::c.router.expert_scale, L::c.capacity.renormalise_kept>;

/// Numbers of a call that routing reads.
struct route_numbers {
    float scale, epsilon, noise, threshold;
    bool training;
    counter_rng draw;
    index_t first_token;
};

/// What a warp knows of its token.
template <class P>
struct token_state {
    using A = typename P::accumulate_type;
    static constexpr std::size_t lanes_of_logits = (P::choices + 31) / 32, lanes_of_slots = (P::slots + 31) / 32;
    A z[lanes_of_logits];
    std::int32_t ids[lanes_of_slots];
    A weights[lanes_of_slots];
    int lane;
    A largest;

    /// term(i) for this lane's i, added in the order of a warp.
    template <int N, std::size_t Each, class Term>
    __device__ __forceinline__ A sum(Term term) const {
        A own = 0;
        GATEFOLD_UNROLL
        for (int r = 0; r < int{Each}; ++r)
            if (r * 32 + lane < N) own += term(r);
        return warp_sum(own);
    }
    template <class Term>
    __device__ __forceinline__ A over_logits(Term term) const {
        return sum<P::choices, lanes_of_logits>(term);
    }
    template <class Term>
    __device__ __forceinline__ A over_slots(Term term) const {
        return sum<P::slots, lanes_of_slots>(term);
    }
    /// The value that slot s has in `values`.
    template <class V>
    __device__ __forceinline__ V slot(const V (&values)[lanes_of_slots], int s) const {
        V v = values[0];
        GATEFOLD_UNROLL
        for (int q = 1; q < int{lanes_of_slots}; ++q) v = s / 32 == q ? values[q] : v;
        return __shfl_sync(all_lanes, v, s % 32);
    }
};

/// The number whose order word this is.
template <class A>
__device__ __forceinline__ A key_of(order_word<A> word) {
    constexpr order_word<A> sign = ~(~order_word<A>{0} >> 1);
    return bits_as<A>((word & sign) != 0 ? static_cast<order_word<A>>(word ^ sign) : static_cast<order_word<A>>(~word));
}

/// The largest word of the warp and the lowest index that has it; -1 where all are 0.
template <std::size_t Each, class Word>
__device__ __forceinline__ int best_of_warp(const Word (&words)[Each], int lane) {
    Word own = 0;
    int at = 0;
    GATEFOLD_UNROLL
    for (int r = 0; r < int{Each}; ++r)
        if (words[r] > own) {
            own = words[r];
            at = r;
        }
    const Word best = warp_max(own);
    if (best == 0) return -1;
    return static_cast<int>(
        __reduce_min_sync(all_lanes, own == best ? static_cast<unsigned>(at * 32 + lane) : all_lanes));
}

/// Takes the `count` best experts into the slots from `first` on.
template <class P, class Word>
__device__ __forceinline__ void take_best(token_state<P>& t, Word (&words)[token_state<P>::lanes_of_logits], int first,
                                          int count) {
    for (int s = first; s < first + count; ++s) {
        const int e = best_of_warp(words, t.lane);
        GATEFOLD_UNROLL
        for (int r = 0; r < int{token_state<P>::lanes_of_logits}; ++r)
            if (r * 32 + t.lane == e) words[r] = 0;
        GATEFOLD_UNROLL
        for (int q = 0; q < int{token_state<P>::lanes_of_slots}; ++q)
            if (q * 32 + t.lane == s) t.ids[q] = e;
    }
}

/// Experts outside the kept groups get the word of key 0, or 0.
template <class P, class Word>
__device__ __forceinline__ void limit_groups(const token_state<P>& t, Word (&words)[token_state<P>::lanes_of_logits]) {
    using A = typename P::accumulate_type;
    constexpr router_config r = P::c.router;
    constexpr int each = token_state<P>::lanes_of_logits, per = P::choices / r.groups;
    constexpr std::size_t group_lanes = (r.groups + 31) / 32;
    Word groups[group_lanes] = {};
    for (int g = 0; g < r.groups; ++g) {
        Word first = 0, second = 0;
        GATEFOLD_UNROLL
        for (int i = 0; i < each; ++i) {
            const int e = i * 32 + t.lane;
            const Word word = e < P::choices && e / per == g ? words[i] : Word(0);
            if (word > first) {
                second = first;
                first = word;
            } else if (word > second) {
                second = word;
            }
        }
        Word result = warp_max(first);
        if constexpr (r.group_by == group_key::top2_sum) {
            const unsigned owners = __ballot_sync(all_lanes, first == result);
            const int owner = __ffs(static_cast<int>(owners)) - 1;
            const Word next = warp_max(t.lane == owner ? second : first);
            result = order_key(key_of<A>(result) + key_of<A>(next));
        }
        GATEFOLD_UNROLL
        for (int q = 0; q < int{group_lanes}; ++q)
            if (q * 32 + t.lane == g) groups[q] = result;
    }
    unsigned kept[group_lanes] = {};
    for (int i = 0; i < r.kept_groups; ++i) {
        const int g = best_of_warp(groups, t.lane);
        GATEFOLD_UNROLL
        for (int q = 0; q < int{group_lanes}; ++q) {
            if (q * 32 + t.lane == g) groups[q] = 0;
            if (g / 32 == q) kept[q] |= 1u << (g % 32);
        }
    }
    GATEFOLD_UNROLL
    for (int i = 0; i < each; ++i) {
        const int e = i * 32 + t.lane, g = e / per;
        bool is_kept = false;
        GATEFOLD_UNROLL
        for (int q = 0; q < int{group_lanes}; ++q)
            is_kept = is_kept || (g / 32 == q && (kept[q] >> (g % 32) & 1u) != 0);
        if (e < P::choices && !is_kept) words[i] = r.masked == group_mask::zero ? order_key(A(0)) : Word(0);
    }
}

/// The words that selection compares.
template <class P, class Bias, class Word>
__device__ __forceinline__ void order_words(const token_state<P>& t, const Bias* selection_bias, const route_numbers& n,
                                            index_t token, Word (&words)[token_state<P>::lanes_of_logits]) {
    using A = typename P::accumulate_type;
    using traits = router_traits<P>;
    constexpr router_config r = P::c.router;
    [[maybe_unused]] A total = 1;
    if constexpr (traits::softmax_keys && r.select == selection::top_k)
        total = t.over_logits([&](int i) { return softmax_term(t.z[i], t.largest); });
    GATEFOLD_UNROLL
    for (int i = 0; i < int{token_state<P>::lanes_of_logits}; ++i) {
        const int e = i * 32 + t.lane;
        words[i] = 0;
        if (e >= P::choices) continue;
        A key = t.z[i];
        if constexpr (r.select == selection::top_k) {
            if constexpr (traits::softmax_keys)
                key = softmax_term(key, t.largest) / total;
            else if constexpr (!selects_by_logit(P::c))
                key = score_of<r.from>(key);
            if constexpr (!selects_by_logit(P::c) && r.scores_in == precision::storage)
                key = to_accumulate(from_accumulate<typename P::value_type>(key));
            if constexpr (r.selection_bias != key_bias::none) key += selection_bias[e];
            if (is_nan(t.z[i])) key = -real_format<A>::infinity;
        } else if constexpr (r.select == selection::sampled) {
            if (n.training)
                key =
                    gatefold::fma(n.draw.template gumbel<A>(purpose::sampling, token, e), static_cast<A>(n.noise), key);
        } else if constexpr (r.select == selection::positive) {
            if (!(key > A(0))) continue;
        }
        words[i] = order_key(key);
        if constexpr (r.select == selection::uniform)
            words[i] = static_cast<Word>((n.draw.bits(purpose::sampling, token, e) >> 1) + 1u);
    }
}

/// Chooses the experts of a token that has a logit above -inf.
template <class P, class Bias>
__device__ __forceinline__ void choose(token_state<P>& t, const Bias* selection_bias, const route_numbers& n,
                                       index_t token) {
    using A = typename P::accumulate_type;
    constexpr router_config r = P::c.router;
    order_word<A> words[token_state<P>::lanes_of_logits];
    order_words(t, selection_bias, n, token, words);
    if constexpr (r.groups > 1) limit_groups(t, words);
    if constexpr (r.second == second_expert::sampled) {
        if (n.training) {
            take_best(t, words, 0, 1);
            const std::int32_t best = t.slot(t.ids, 0);
            order_words(t, selection_bias, n, token, words);
            GATEFOLD_UNROLL
            for (int i = 0; i < int{token_state<P>::lanes_of_logits}; ++i) {
                const int e = i * 32 + t.lane;
                if (e < P::choices)
                    words[i] =
                        e == best
                            ? order_word<A>(0)
                            : order_key(key_of<A>(words[i]) + n.draw.template gumbel<A>(purpose::gumbel, token, e));
            }
            take_best(t, words, 1, 1);
            return;
        }
    }
    take_best(t, words, 0, P::slots);
    if constexpr (r.select == selection::top_p) {
        const A total = t.over_logits([&](int i) { return softmax_term(t.z[i], t.largest); });
        // The sum runs over the slots upwards: every lane forms it.
        A sum = 0;
        for (int s = 0; s < P::slots; ++s) {
            const std::int32_t e = t.slot(t.ids, s);
            const bool ends = !(sum < static_cast<A>(n.threshold));
            A z = 0;
            GATEFOLD_UNROLL
            for (int i = 0; i < int{token_state<P>::lanes_of_logits}; ++i) z = e / 32 == i ? t.z[i] : z;
            z = __shfl_sync(all_lanes, z, e & 31);
            if (!ends) sum += softmax_term(z, t.largest) / total;
            GATEFOLD_UNROLL
            for (int q = 0; q < int{token_state<P>::lanes_of_slots}; ++q)
                if (ends && q * 32 + t.lane == s) t.ids[q] = -1;
        }
    }
}

/// The weights of the chosen; `logit(e)` reads a logit.
template <class P, class Scales, class Logit>
__device__ __forceinline__ void weigh(token_state<P>& t, bool undecided, const Scales* expert_scale,
                                      const route_numbers& n, index_t token, Logit logit) {
    using A = typename P::accumulate_type;
    using traits = router_traits<P>;
    constexpr router_config r = P::c.router;
    constexpr int each = token_state<P>::lanes_of_slots;
    const auto exists = [&](int q) { return q * 32 + t.lane < P::slots && t.ids[q] >= 0; };
    const auto returns = [&](int q) { return P::choices == traits::first_zero || t.ids[q] < traits::first_zero; };
    A v[std::size_t{each}];
    if (undecided) {
        unsigned chosen = 0;
        GATEFOLD_UNROLL
        for (int q = 0; q < each; ++q) chosen += static_cast<unsigned>(__popc(__ballot_sync(all_lanes, exists(q))));
        GATEFOLD_UNROLL
        for (int q = 0; q < each; ++q) {
            t.weights[q] = exists(q) && returns(q)
                               ? scale_weight<P>(A(1) / static_cast<A>(chosen), n.scale, expert_scale, t.ids[q])
                               : A(0);
            v[q] = A(1) / static_cast<A>(P::slots);
        }
    } else {
        A z[std::size_t{each}];
        GATEFOLD_UNROLL
        for (int q = 0; q < each; ++q) z[q] = exists(q) ? logit(t.ids[q]) : -real_format<A>::infinity;
        A m = t.largest, total = 1;
        if constexpr (traits::over_chosen) {
            A own = -real_format<A>::infinity;
            GATEFOLD_UNROLL
            for (int q = 0; q < each; ++q) own = z[q] > own ? z[q] : own;
            m = key_of<A>(warp_max(order_key(own)));
            if constexpr (!traits::ratios_only)
                total = t.over_slots([&](int q) { return t.ids[q] < 0 ? A(0) : softmax_term(z[q], m); });
        } else if constexpr (traits::whole_softmax) {
            total = t.over_logits([&](int i) { return softmax_term(t.z[i], m); });
        }
        bool infinite = false;
        GATEFOLD_UNROLL
        for (int q = 0; q < each; ++q) {
            A score = 0;
            if (exists(q) && returns(q)) {
                if constexpr (traits::ratios_only)
                    score = softmax_term(z[q], m);
                else if constexpr (traits::over_chosen || traits::whole_softmax)
                    score = share_of(softmax_term(z[q], m), total);
                else
                    score = score_of<r.from>(z[q]);
                if constexpr (r.scores_in == precision::storage)
                    score = to_accumulate(from_accumulate<typename P::value_type>(score));
            }
            v[q] = score;
            infinite = infinite || score == real_format<A>::infinity;
        }
        if constexpr (traits::unbounded_score && r.renorm != renormalise::none) {
            if (__any_sync(all_lanes, infinite)) {
                GATEFOLD_UNROLL
                for (int q = 0; q < each; ++q) v[q] = v[q] == real_format<A>::infinity ? A(1) : A(0);
            }
        }
        A divisor = 1;
        if constexpr (r.renorm != renormalise::none)
            divisor = divisor_of<r.renorm>(t.over_slots([&](int q) { return v[q]; }), static_cast<A>(n.epsilon));
        GATEFOLD_UNROLL
        for (int q = 0; q < each; ++q)
            t.weights[q] = exists(q) ? scale_weight<P>(r.renorm == renormalise::none ? v[q] : share_of(v[q], divisor),
                                                       n.scale, expert_scale, t.ids[q])
                                     : A(0);
    }
    if constexpr (traits::judges_second) {
        const std::int32_t second = t.slot(t.ids, 1);
        // Weights that are divided after the choice are judged by the score.
        const A judged = r.second == second_expert::random_score || P::c.capacity.renormalise_kept
                             ? t.slot(v, 1)
                             : t.slot(t.weights, 1);
        const A threshold = static_cast<A>(n.threshold);
        bool stays = true;
        if constexpr (r.second == second_expert::threshold)
            stays = judged > threshold;
        else if (n.training)
            stays = n.draw.template uniform_from_zero<A>(purpose::second_expert, token, 0) < judged / threshold;
        if (second < 0 || stays) return;
        if (t.lane == 1) {
            t.ids[0] = -1;
            t.weights[0] = 0;
        }
        if (P::c.capacity.renormalise_kept && !undecided && t.lane == 0) {
            const A divisor = divisor_of<r.renorm>(v[0], static_cast<A>(n.epsilon));
            t.weights[0] = scale_weight<P>(r.renorm == renormalise::none ? v[0] : share_of(v[0], divisor), n.scale,
                                           expert_scale, t.ids[0]);
        }
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
