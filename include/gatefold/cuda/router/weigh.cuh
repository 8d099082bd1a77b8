// The weights of one token's experts by one warp, with the bits of the CPU wing.
//
//     logits, ids[S] ── scores of the chosen ──> v[S] ── divided by their sum, scaled ──> weights[S]
#pragma once

#include <gatefold/cuda/router/policy.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// The scores of the chosen before they are divided: v[q] belongs to this lane's slot q, 0 where it is empty or its
/// expert returns nothing. The token has a logit above -inf; `logit(e)` reads one.
template <class P, class Logit>
__device__ __forceinline__ void scores_of_chosen(const token_state<P>& t, Logit logit,
                                                 typename P::accumulate_type (&v)[token_state<P>::lanes_of_slots]) {
    using A = typename P::accumulate_type;
    using traits = router_traits<P>;
    constexpr router_config r = P::c.router;
    constexpr int each = token_state<P>::lanes_of_slots;
    A z[std::size_t{each}];
    GATEFOLD_UNROLL
    for (int q = 0; q < each; ++q) z[q] = t.has(q) ? logit(t.ids[q]) : -real_format<A>::infinity;
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
        v[q] = t.has(q) && t.returns(q) ? score_of_logit<P>(z[q], m, total) : A(0);
        infinite = infinite || v[q] == real_format<A>::infinity;
    }
    if constexpr (traits::unbounded_score && r.renorm != renormalise::none) {
        if (__any_sync(all_lanes, infinite)) {
            GATEFOLD_UNROLL
            for (int q = 0; q < each; ++q) v[q] = v[q] == real_format<A>::infinity ? A(1) : A(0);
        }
    }
}

/// The weights for the scores v. Slots with `counts(q)` false get weight zero and stay out of the sum.
template <class P, class Scales, class Counts>
__device__ __forceinline__ void weigh_scores(token_state<P>& t,
                                             const typename P::accumulate_type (&v)[token_state<P>::lanes_of_slots],
                                             const route_numbers& n, const Scales* expert_scale, Counts counts) {
    using A = typename P::accumulate_type;
    constexpr renormalise how = P::c.router.renorm;
    [[maybe_unused]] const A power = static_cast<A>(n.power);
    A divisor = 1;
    if constexpr (how != renormalise::none)
        divisor = divisor_of<how>(t.over_slots([&](int q) { return counts(q) ? sum_term<how>(v[q], power) : A(0); }),
                                  static_cast<A>(n.epsilon));
    if constexpr (how == renormalise::norm) divisor = root_of(divisor, power);
    GATEFOLD_UNROLL
    for (int q = 0; q < int{token_state<P>::lanes_of_slots}; ++q)
        t.weights[q] = t.has(q) && counts(q)
                           ? scale_weight<P>(how == renormalise::none ? v[q] : share_of(v[q], divisor), n.scale,
                                             expert_scale, t.ids[q])
                           : A(0);
}

/// The weights of the chosen; a second expert that is turned away loses its id.
template <class P, class Scales, class Logit>
__device__ __forceinline__ void weigh(token_state<P>& t, bool undecided, const Scales* expert_scale,
                                      const route_numbers& n, index_t token, Logit logit) {
    using A = typename P::accumulate_type;
    using traits = router_traits<P>;
    constexpr router_config r = P::c.router;
    constexpr int each = token_state<P>::lanes_of_slots;
    A v[std::size_t{each}];
    if (undecided) {
        unsigned chosen = 0;
        GATEFOLD_UNROLL
        for (int q = 0; q < each; ++q) chosen += static_cast<unsigned>(__popc(__ballot_sync(all_lanes, t.has(q))));
        GATEFOLD_UNROLL
        for (int q = 0; q < each; ++q) {
            t.weights[q] = t.has(q) && t.returns(q)
                               ? scale_weight<P>(A(1) / static_cast<A>(chosen), n.scale, expert_scale, t.ids[q])
                               : A(0);
            v[q] = A(1) / static_cast<A>(P::slots);
        }
    } else {
        if constexpr (r.learns_from == estimator::straight_through) {
            GATEFOLD_UNROLL
            for (int q = 0; q < each; ++q) v[q] = A(1);
        } else {
            scores_of_chosen(t, logit, v);
        }
        weigh_scores(t, v, n, expert_scale, [](int) { return true; });
    }
    if constexpr (traits::judges_second) {
        const std::int32_t second = t.slot(t.ids, 1);
        const bool stays =
            second_stays<P>(t.slot(t.weights, 1), t.slot(v, 1), static_cast<A>(n.threshold), n.training, n.draw, token);
        if (second < 0 || stays) return;
        if (t.lane == 1) {
            t.ids[0] = -1;
            t.weights[0] = 0;
        }
        if constexpr (P::c.capacity.renormalise_kept) {
            if (!undecided) weigh_scores(t, v, n, expert_scale, [&](int) { return t.lane == 0; });
        }
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
