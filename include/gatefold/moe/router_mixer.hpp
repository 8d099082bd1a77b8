// SparseMixer-v2 (Phi-3.5-MoE): two picks in a row, each among the logits near the largest one that is left.
//
//     z[N] ── mask by distance to the largest ──> softmax q ── argmax, or a draw in training ──> choice, weight
//     q[choice]
//
// Backward lets through the gradient of q[choice] as it is; the factor of forward is left out, as its authors do.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/core/random.hpp>
#include <gatefold/moe/router_math.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// The masked softmax of one pick over n logits; `excluded` is the earlier choice or -1.
template <class A>
struct mixer_pick {
    const A* z;
    int n;
    std::int32_t excluded;
    A tolerance;
    A m = 0, total = 0;

    GATEFOLD_HD GATEFOLD_INLINE mixer_pick(const A* logits, int count, std::int32_t without, A noise)
        : z(logits), n(count), excluded(without), tolerance(noise + noise) {
        m = -real_format<A>::infinity;
        for (int i = 0; i < n; ++i)
            if (i != excluded && z[i] > m) m = z[i];
        total = lane_sum<A>(n, [&](int i) { return is_kept(i) ? softmax_term(z[i], m) : A(0); });
    }
    /// Whether expert i is near enough to the largest; none is where nothing above -inf is left.
    GATEFOLD_HD GATEFOLD_INLINE bool is_kept(int i) const {
        if (i == excluded || !(z[i] > -real_format<A>::infinity)) return false;
        const A size = z[i] < A(0) ? -z[i] : z[i];
        return z[i] == m || (m - z[i]) / (size > m ? size : m) <= tolerance;
    }
    GATEFOLD_HD GATEFOLD_INLINE A probability(int i) const { return is_kept(i) ? softmax_term(z[i], m) / total : A(0); }
    /// The largest of z + noise(i) among the kept; the lowest of the others where none is kept.
    GATEFOLD_ANY_CALLABLE
    template <class Noise>
    GATEFOLD_HD GATEFOLD_INLINE std::int32_t choice(Noise noise) const {
        std::int32_t best = -1;
        order_word<A> word = 0;
        for (int i = 0; i < n; ++i) {
            if (i == excluded) continue;
            const order_word<A> candidate = order_key(is_kept(i) ? z[i] + noise(i) : -real_format<A>::infinity);
            if (best < 0 || candidate > word) {
                best = i;
                word = candidate;
            }
        }
        return best;
    }
};

/// Two picks for one token: ids and the probabilities v of the choices; factor[s] multiplies the weight in forward.
template <class A>
GATEFOLD_HD GATEFOLD_INLINE void mixer_choose(const A* z, int n, A noise, bool training, const counter_rng& draw,
                                              index_t token, bool choices_given, std::int32_t* ids, A* v, A* factor) {
    for (int s = 0; s < 2; ++s) {
        const mixer_pick<A> pick(z, n, s == 0 ? -1 : ids[0], noise);
        const std::int32_t best = pick.choice([](int) { return A(0); });
        factor[s] = A(1);
        if (!choices_given)
            ids[s] = !training ? best : pick.choice([&](int i) {
                return draw.template gumbel<A>(purpose::gumbel, token, index_t{s} * n + i);
            });
        if (training && ids[s] != best && !(draw.template uniform_from_zero<A>(purpose::sampling, token, s) > A(0.75)))
            factor[s] = A(0.3333);
        v[s] = ids[s] < 0 ? A(0) : pick.probability(ids[s]);
    }
}

/// Adds to dz the gradient for d[s], the gradients of the probabilities of the two choices.
template <class A>
GATEFOLD_HD GATEFOLD_INLINE void mixer_backward(const A* z, int n, A noise, const std::int32_t* ids, const A* d,
                                                A* dz) {
    for (int s = 0; s < 2; ++s) {
        if (ids[s] < 0) continue;
        const mixer_pick<A> pick(z, n, s == 0 ? -1 : ids[0], noise);
        const A along = mul(d[s], pick.probability(ids[s]));
        for (int i = 0; i < n; ++i) dz[i] -= mul(pick.probability(i), along);
        dz[ids[s]] += along;
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER
