// What capacity on CUDA needs to know: the groups that share one, and the keys by which pairs take precedence.
#pragma once

#include <gatefold/cuda/device/context.cuh>
#include <gatefold/cuda/plan.cuh>
#include <gatefold/cuda/router/weigh.cuh>
#include <gatefold/moe/capacity.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// The most blocks that share the groups of one expert.
inline constexpr int most_group_blocks = 32;

/// The groups of tokens that share a capacity: sequences, or `size` tokens each.
struct capacity_groups {
    const std::int32_t* starts = nullptr;
    int count = 1;
    index_t size = 0, tokens = 0;
    index_t most = 0, most_of_last = 0;  ///< rows per expert, for groups of `size` tokens
    capacity_config rule = {};
    double factor = 0;
    int experts = 0, top_k = 0;
    bool training = false;

    __device__ __forceinline__ index_t begin(int g) const { return starts ? starts[g] : g * size; }
    __device__ __forceinline__ index_t end(int g) const { return g + 1 == count ? tokens : begin(g + 1); }
    __device__ __forceinline__ index_t limit(int g) const {
        if (!starts) return g + 1 == count ? most_of_last : most;
        const index_t n = end(g) - begin(g);
        return capacity_of_decimal(rule, factor, n, experts, top_k, training, n * experts);
    }
};

template <class P>
struct limit_arguments {
    using A = typename P::accumulate_type;
    capacity_groups groups = {};
    const std::int32_t *offsets = nullptr, *rows = nullptr;  ///< the plan of all pairs
    const std::int32_t* ids = nullptr;                       ///< [T, S]
    const A* logits = nullptr;
    index_t logits_stride = 0;
    A* weights = nullptr;            ///< [T, S]
    order_word<A>* words = nullptr;  ///< by row: keys that take a whole token to compute
    std::uint8_t* kept = nullptr;    ///< by pair, or null
    std::int32_t* counts = nullptr;  ///< [blocks, N] kept pairs, or null
    int blocks = 1;                  ///< blocks that share an expert's groups
    int experts = 0;                 ///< those with weights
    bool plans = false;              ///< admit_pairs makes the plan of the kept pairs
    plan_output plan = {};
    route_numbers numbers = {};
    device_control* control = nullptr;
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// The largest logit of a token and its own logits, for the functions on token_state.
template <class P>
__device__ __forceinline__ bool load_token(token_state<P>& s, const limit_arguments<P>& a, index_t t) {
    const bool decided = read_logits(s, a.logits + t * a.logits_stride);
    GATEFOLD_UNROLL
    for (int q = 0; q < int{token_state<P>::lanes_of_slots}; ++q)
        s.ids[q] = q * 32 + s.lane < P::slots ? a.ids[t * P::slots + q * 32 + s.lane] : -1;
    return decided;
}

/// The key of one pair of a token, by the warp: how important the token is, or the pair's score.
template <class P, priority Keeps>
__device__ __forceinline__ order_word<typename P::accumulate_type> key_of_pair(const limit_arguments<P>& a,
                                                                               std::int32_t pair) {
    using A = typename P::accumulate_type;
    constexpr score from = P::c.router.from;
    token_state<P> s;
    const index_t t = pair / P::slots;
    const bool decided = load_token(s, a, t);
    const A* z = a.logits + t * a.logits_stride;
    if constexpr (Keeps == priority::probability) {
        A v[token_state<P>::lanes_of_slots];
        if (!decided) return order_key(A(1) / A(P::slots));
        scores_of_chosen(
            s, [&](int e) { return z[e]; }, v);
        return order_key(s.slot(v, pair % P::slots));
    } else {
        constexpr bool sum = Keeps == priority::importance_sum;
        if (!decided) return order_key(A(0));
        if constexpr (from == score::softmax || from == score::softmax_selected) {
            const A total = s.over_logits([&](int i) { return softmax_term(s.z[i], s.largest); });
            if constexpr (!sum) return order_key(A(1) / total);
            return order_key(s.over_slots(
                [&](int q) { return s.ids[q] < 0 ? A(0) : softmax_term(z[s.ids[q]], s.largest) / total; }));
        } else {
            if constexpr (!sum) return order_key(score_of<from>(s.largest));
            return order_key(s.over_slots([&](int q) { return s.ids[q] < 0 ? A(0) : score_of<from>(z[s.ids[q]]); }));
        }
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
