// What the router's kernels are compiled for, and what a warp knows of its token: lane l holds the logits l, l + 32,
// ... and the slots l, l + 32, ...
#pragma once

#include <gatefold/core/random.hpp>
#include <gatefold/cuda/device/device.cuh>
#include <gatefold/moe/router_token.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// The part of a configuration that the router's kernels are compiled for, as scalars: a kernel's template argument
/// holds no class. Layers that differ in their experts only share these kernels. It stands for the layer in the
/// functions of moe/router_token.hpp. X is the type of the rows that are projected, Depth their width.
template <class T, class X, class R, int Depth, int Experts, int Constants, int Copies, int Zeros, int TopK, int Slots,
          projection Logits, bool LogitBias, bool LogitsStored, logit_transform Transform, selection Select, score From,
          bool ScoresStored, key_bias SelectionBias, int Groups, int KeptGroups, group_key GroupBy, group_mask Masked,
          second_expert Second, renormalise Renorm, scale_at Scaled, bool ExpertScale, bool RenormaliseKept, bool Ones,
          bool Gates>
struct router_policy {
    using value_type = T;
    using input_type = X;
    using accumulate_type = accumulate_t<T>;
    using router_type = R;
    /// Of the matrix that makes the logits: for the cosine its rows were brought to length 1.
    using matrix_type = std::conditional_t<Logits == projection::cosine, accumulate_type, R>;
    static constexpr int depth = Depth, experts = Experts, top_k = TopK, slots = Slots;
    static constexpr int choices = Experts + Constants + Copies + Zeros;
    static constexpr bool gates = Gates;  ///< the shared expert has a gate
    static constexpr config c = {.hidden = Depth,
                                 .experts = Experts,
                                 .top_k = TopK,
                                 .router = {.logits = Logits,
                                            .logits_in = LogitsStored ? precision::storage : precision::accumulate,
                                            .scores_in = ScoresStored ? precision::storage : precision::accumulate,
                                            .bias = LogitBias,
                                            .transform = Transform,
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
                                            .expert_scale = ExpertScale,
                                            .learns_from = Ones ? estimator::straight_through : estimator::chosen},
                                 .capacity = {.renormalise_kept = RenormaliseKept},
                                 .free = {.constant = Constants, .copy = Copies, .zero = Zeros}};
};

/// What is projected to logits: the tokens, or rows that a kernel made of them (cuda/router/input.cuh).
template <layer_type L>
struct logits_source {
    static constexpr router_config r = L::c.router;
    static constexpr bool deep = r.logits == projection::two_layer || r.logits == projection::cosine;
    static constexpr bool normed = r.logits != projection::none && r.input != router_input::tokens;
    /// Rows of the accumulation type in every call; noise on the input makes them in training only.
    static constexpr bool moved = normed || deep;
    static constexpr int depth = deep ? r.projection_width : L::hidden;
};

/// `Moved`: the rows that are projected have the accumulation type.
template <layer_type L, bool Moved = logits_source<L>::moved>
using policy_of = router_policy<
    typename L::value_type, std::conditional_t<Moved, typename L::accumulate_type, typename L::value_type>,
    typename L::router_type, logits_source<L>::depth, L::experts, L::c.free.constant, L::c.free.copy, L::c.free.zero,
    L::top_k, L::slots, L::c.router.logits == projection::two_layer ? projection::linear : L::c.router.logits,
    L::c.router.bias, L::c.router.logits_in == precision::storage, L::c.router.transform, L::c.router.select,
    L::c.router.from, L::c.router.scores_in == precision::storage, L::c.router.selection_bias, L::c.router.groups,
    L::c.router.kept_groups, L::c.router.group_by, L::c.router.masked, L::c.router.second, L::c.router.renorm,
    L::c.router.scaled, L::c.router.expert_scale, L::c.capacity.renormalise_kept,
    L::c.router.learns_from == estimator::straight_through, L::c.shared.gate>;

/// The gate of the shared expert, which reads the tokens while they are in the cache for the router.
template <class T>
struct shared_gate {
    const T *x = nullptr, *weights = nullptr;
    index_t x_stride = 0;
    int width = 0;
    accumulate_t<T>* out = nullptr;  ///< by token; null: not asked for
};

/// Numbers of a call that routing reads.
struct route_numbers {
    double scale;
    float epsilon, noise, threshold, power;
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

    /// Whether this lane's slot q holds an expert, and whether that one returns anything.
    __device__ __forceinline__ bool has(int q) const { return q * 32 + lane < P::slots && ids[q] >= 0; }
    __device__ __forceinline__ bool returns(int q) const {
        return P::choices == router_traits<P>::first_zero || ids[q] < router_traits<P>::first_zero;
    }

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

/// Reads the logits of a token; whether one is above -inf.
template <class P>
__device__ __forceinline__ bool read_logits(token_state<P>& s, const typename P::accumulate_type* z) {
    using A = typename P::accumulate_type;
    s.lane = static_cast<int>(threadIdx.x) % 32;
    order_word<A> best = 0;
    GATEFOLD_UNROLL
    for (int i = 0; i < int{token_state<P>::lanes_of_logits}; ++i) {
        const int e = i * 32 + s.lane;
        s.z[i] = e < P::choices ? z[e] : -real_format<A>::infinity;
        const order_word<A> word = order_key(s.z[i]);
        best = word > best ? word : best;
    }
    s.largest = key_of<A>(warp_max(best));
    return s.largest > -real_format<A>::infinity;
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
