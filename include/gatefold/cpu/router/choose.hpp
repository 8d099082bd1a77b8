// The choice of one token's experts on the CPU, from its logits.
//
//     z[N] ── keys (+ bias, noise) ── groups ──> the k best ──> ids[S] in key order, -1 in empty slots
//
// Routers that look at the whole batch are in cpu/router/assign.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/cpu/draws.hpp>
#include <gatefold/cpu/router/groups.hpp>
#include <gatefold/cpu/router/row.hpp>
#include <gatefold/cpu/router/top_keys.hpp>
#include <gatefold/moe/router_mixer.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// The smallest number of experts, best first, whose probabilities add up to `threshold`; at most S.
template <layer_type L, class A = typename L::accumulate_type>
void choose_top_p(const A* z, A threshold, order_word<A>* best, std::int32_t* ids) {
    best_keys(z, L::choices, L::slots, best, ids);
    const auto [m, total] = row_softmax<A>(z, L::choices);
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
    constexpr int N = L::choices;
    word best[std::size_t{L::slots}];
    const counter_rng draw{o.seed, o.step, static_cast<int>(o.layer)};
    if constexpr (r.select == selection::top_k) {
        constexpr bool by_logit = r.groups == 1 && selects_by_logit(L::c) && r.selection_bias == key_bias::none;
        if constexpr (!by_logit) row_keys<L>(z, selection_bias, keys);
        const A* compared = by_logit ? z : keys;
        if constexpr (r.groups > 1)
            choose_in_groups<L>(keys, best, ids);
        else
            best_keys(compared, N, L::slots, best, ids);
        if constexpr (r.second == second_expert::sampled)
            if (o.training) {
                token_draws<A> draws(draw, purpose::gumbel, token);
                for (int i = 0; i < N; i += lanes<A>)
                    store_first(keys + i, load_first<A>(compared + i, N - i) + draws.gumbel(i), N - i);
                top_keys<A> second(best, ids + 1, 1);
                second.offer(keys, 0, ids[0]);
                second.offer(keys, ids[0] + 1, N);
                second.finish();
            }
    } else if constexpr (r.select == selection::sampled) {
        if (!o.training) return best_keys(z, N, L::slots, best, ids);
        token_draws<A> draws(draw, purpose::sampling, token);
        const vec<A> size = broadcast<A>(static_cast<A>(o.noise));
        for (int i = 0; i < N; i += lanes<A>)
            store_first(keys + i, number<vec<A>>::fma(draws.gumbel(i), size, load_first<A>(z + i, N - i)), N - i);
        best_keys(keys, N, L::slots, best, ids);
    } else if constexpr (r.select == selection::uniform) {
        // Words above 0, because 0 cannot be chosen.
        best_of(
            N, L::slots, [&](int i) { return static_cast<word>((draw.bits(purpose::sampling, token, i) >> 1) + 1u); },
            best, ids);
    } else if constexpr (r.select == selection::top_p) {
        choose_top_p<L>(z, static_cast<A>(o.threshold), best, ids);
    } else if constexpr (r.select == selection::positive) {
        best_of(
            N, L::slots, [&](int i) { return z[i] > A(0) ? order_key(z[i]) : word(0); }, best, ids);
    } else {
        best_keys(z, N, L::slots, best, ids);
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
