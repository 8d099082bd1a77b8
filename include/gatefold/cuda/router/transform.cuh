// The last step of a token's logits, by one warp: normalisation, the residual of the layer below, noise in training.
#pragma once

#include <gatefold/cuda/router/policy.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// What transforms read besides the logits.
template <class P>
struct transform_inputs {
    using A = typename P::accumulate_type;
    const A* previous = nullptr;  ///< [T, N] logits of the layer below, or null
    index_t previous_stride = 0;
    const typename P::router_type* residual = nullptr;  ///< [N, N]
    const A* deviations = nullptr;                      ///< [T, N] x W_n, or null
    A* kept_deviations = nullptr;                       ///< [T, N] the tape's, or null
};

/// Changes the logits of token t, which lie in s.z, and returns whether it did. `token` is its number for draws.
template <class P>
__device__ __forceinline__ bool transform_logits(token_state<P>& s, const transform_inputs<P>& in,
                                                 const route_numbers& n, index_t t, index_t token) {
    using A = typename P::accumulate_type;
    constexpr logit_transform transform = P::c.router.transform;
    constexpr int each = token_state<P>::lanes_of_logits, N = P::choices;
    if constexpr (transform == logit_transform::none) {
        return false;
    } else if constexpr (transform == logit_transform::normalised) {
        const A mean = s.over_logits([&](int i) { return s.z[i]; }) / static_cast<A>(N);
        const A square = s.over_logits([&](int i) { return gatefold::mul(s.z[i] - mean, s.z[i] - mean); });
        const A deviation = gatefold::sqrt(square / static_cast<A>(N));
        GATEFOLD_UNROLL
        for (int i = 0; i < each; ++i)
            if (i * 32 + s.lane < N)
                s.z[i] = gatefold::mul(share_of(s.z[i] - mean, deviation), static_cast<A>(n.noise));
        return true;
    } else if constexpr (transform == logit_transform::residual) {
        if (!in.previous) return false;
        const A* previous = in.previous + t * in.previous_stride;
        // One chain per logit that goes on from the logit, as on the CPU.
        for (int j = 0; j < N; ++j) {
            const A z = previous[j];
            GATEFOLD_UNROLL
            for (int i = 0; i < each; ++i)
                if (const int e = i * 32 + s.lane; e < N)
                    s.z[i] = gatefold::fma(z, to_accumulate(in.residual[static_cast<index_t>(e) * N + j]), s.z[i]);
        }
        return true;
    } else {
        if (!n.training) return false;
        GATEFOLD_UNROLL
        for (int i = 0; i < each; ++i) {
            const int e = i * 32 + s.lane;
            if (e >= N) continue;
            if constexpr (transform == logit_transform::noisy_top_k) {
                const A deviation = noise_deviation(in.deviations[t * N + e]);
                if (in.kept_deviations) in.kept_deviations[t * N + e] = deviation;
                s.z[i] = gatefold::fma(n.draw.template normal<A>(purpose::gaussian, token, e), deviation, s.z[i]);
            }
            if constexpr (transform == logit_transform::gaussian)
                s.z[i] = gatefold::fma(n.draw.template normal<A>(purpose::gaussian, token, e),
                                       static_cast<A>(n.noise) / static_cast<A>(N), s.z[i]);
            if constexpr (transform == logit_transform::gumbel)
                s.z[i] = gatefold::fma(n.draw.template gumbel<A>(purpose::gumbel, token, e), static_cast<A>(n.noise),
                                       s.z[i]);
        }
        return true;
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
