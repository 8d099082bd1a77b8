// The choice of one token's experts on the CPU, from its logits.
//
//     z[N] ── keys (+ bias, noise) ── groups ──> the k best ──> ids[S] in key order, -1 in empty slots
//
// Routers that look at the whole batch are in router_assign.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/core/random.hpp>
#include <gatefold/moe/router_mixer.hpp>
#include <gatefold/moe/router_token.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// The smallest number of experts, best first, whose probabilities add up to `threshold`; at most S.
template <layer_type L, class A = typename L::accumulate_type>
void choose_top_p(const A* z, A threshold, order_word<A>* best, std::int32_t* ids) {
    best_of(
        L::choices, L::slots, [&](int i) { return order_key(z[i]); }, best, ids);
    const A m = largest(z, L::choices);
    const A total = lane_sum<A>(L::choices, [&](int i) { return softmax_term(z[i], m); });
    A sum = 0;
    for (int s = 0; s < L::slots; ++s) {
        if (!(sum < threshold))
            ids[s] = -1;
        else
            sum += softmax_term(z[ids[s]], m) / total;
    }
}

/// Chooses the experts of one token whose logits are not all NaN or -inf. `keys` is room for N numbers.
template <layer_type L, class A = typename L::accumulate_type>
void choose_token(const A* z, const A* selection_bias, const options<L>& o, index_t token, A* keys, std::int32_t* ids) {
    constexpr router_config r = L::c.router;
    using word = order_word<A>;
    word best[std::size_t{L::slots}];
    const counter_rng draw{o.seed, o.step, static_cast<int>(o.layer)};
    if constexpr (r.select == selection::top_k) {
        token_keys<L>(z, selection_bias, keys);
        if constexpr (r.groups > 1)
            choose_in_groups<L>(keys, best, ids);
        else
            best_of(
                L::choices, L::slots, [&](int i) { return order_key(keys[i]); }, best, ids);
        if constexpr (r.second == second_expert::sampled)
            if (o.training) {
                const auto noisy = [&](int i) {
                    return i == ids[0] ? word(0)
                                       : order_key(keys[i] + draw.template gumbel<A>(purpose::gumbel, token, i));
                };
                best_of(L::choices, 1, noisy, best, ids + 1);
            }
    } else if constexpr (r.select == selection::sampled) {
        const auto noisy = [&](int i) {
            A key = z[i];
            if (o.training)
                key = gatefold::fma(draw.template gumbel<A>(purpose::sampling, token, i), static_cast<A>(o.noise), key);
            return order_key(key);
        };
        best_of(L::choices, L::slots, noisy, best, ids);
    } else if constexpr (r.select == selection::uniform) {
        // Words above 0, because 0 cannot be chosen.
        best_of(
            L::choices, L::slots,
            [&](int i) { return static_cast<word>((draw.bits(purpose::sampling, token, i) >> 1) + 1u); }, best, ids);
    } else if constexpr (r.select == selection::top_p) {
        choose_top_p<L>(z, static_cast<A>(o.threshold), best, ids);
    } else if constexpr (r.select == selection::positive) {
        best_of(
            L::choices, L::slots, [&](int i) { return z[i] > A(0) ? order_key(z[i]) : word(0); }, best, ids);
    } else {
        best_of(
            L::choices, L::slots, [&](int i) { return order_key(z[i]); }, best, ids);
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
