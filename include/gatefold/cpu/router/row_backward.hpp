// From the gradient of one token's weights to that of its logits, on the CPU: cpu/router/row.hpp in reverse.
//
//     d weights[S] ── divisor ──> d scores[S] ── scores ──> dz[N]
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/cpu/router/row.hpp>
#include <gatefold/ops/rows.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Adds to dz the gradient of the logits for the gradient dw of the weights; `counts` as in weigh_token, `v` from
/// chosen_scores.
template <layer_type L, class Scales, class Counts, class A = typename L::accumulate_type>
GATEFOLD_NOINLINE void token_backward(const A* z, const A* v, const std::int32_t* ids, const A* dw, double scale,
                                      float epsilon, const Scales* expert_scale, Counts counts, A* dz) {
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
        const A along = lane_sum<A>(S, [&](int s) { return gatefold::mul(d[s], share_of(v[s], divisor)); });
        const bool moves = divisor_moves<r.renorm>(total, static_cast<A>(epsilon));
        for (int s = 0; s < S; ++s) {
            A through = moves ? d[s] - along : d[s];
            if constexpr (r.renorm == renormalise::norm)
                through = d[s] - gatefold::mul(along, norm_slope(v[s], divisor, power));
            d[s] = ids[s] >= 0 && counts(s) ? share_of(through, divisor) : A(0);
        }
    }
    const auto returns_nothing = [&](std::int32_t e) {
        return L::choices > traits::first_zero && e >= traits::first_zero;
    };
    if constexpr (traits::ratios_only) {
        // v is an exponential: its derivative is itself.
        for (int s = 0; s < S; ++s)
            if (ids[s] >= 0 && !returns_nothing(ids[s])) dz[ids[s]] += gatefold::mul(v[s], d[s]);
    } else if constexpr (traits::over_chosen || traits::whole_softmax) {
        // What an expert that returns nothing takes of the softmax is a weight nobody uses.
        const A along = lane_sum<A>(S, [&](int s) { return gatefold::mul(v[s], d[s]); });
        if constexpr (traits::over_chosen) {
            A m = -real_format<A>::infinity;
            for (int s = 0; s < S; ++s)
                if (ids[s] >= 0 && z[ids[s]] > m) m = z[ids[s]];
            const A total = lane_sum<A>(S, [&](int s) { return ids[s] < 0 ? A(0) : softmax_term(z[ids[s]], m); });
            for (int s = 0; s < S; ++s) {
                if (ids[s] < 0) continue;
                const A p = share_of(softmax_term(z[ids[s]], m), total);
                dz[ids[s]] += gatefold::mul(p, returns_nothing(ids[s]) ? -along : d[s] - along);
            }
        } else {
            const auto [m, total] = row_softmax<A>(z, L::choices);
            const vec<A> largest_one = broadcast<A>(m), sum = broadcast<A>(total), taken = broadcast<A>(along);
            const auto less = [&](vec<A> to, vec<A> logits) {
                return to - mul(softmax_terms(logits, largest_one) / sum, taken);
            };
            map<A>(L::choices, less, dz, dz, z);
            for (int s = 0; s < S; ++s)
                if (ids[s] >= 0 && !returns_nothing(ids[s]))
                    dz[ids[s]] += gatefold::mul(softmax_term(z[ids[s]], m) / total, d[s]);
        }
    } else {
        for (int s = 0; s < S; ++s)
            if (ids[s] >= 0 && !returns_nothing(ids[s]))
                dz[ids[s]] += gatefold::mul(d[s], score_slope<r.from>(z[ids[s]]));
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
