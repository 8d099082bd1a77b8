// Noise on what a router reads, in training: one element, by the counter generator. Both wings draw it here.
#pragma once

#include <gatefold/config.hpp>
#include <gatefold/core/dtype.hpp>
#include <gatefold/core/random.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// v, element h of `hidden` of a token, with noise of the given kind and size. `Rounds`: to T after every step, as
/// experts that see the noise too read it.
template <input_noise Kind, bool Rounds, class T, class A>
GATEFOLD_HD GATEFOLD_INLINE A disturbed_by(A v, A size, const counter_rng& draw, index_t token, int h, int hidden) {
    if constexpr (Kind == input_noise::dropout) {
        return draw.template uniform_from_zero<A>(purpose::dropout, token, h) < size ? A(0) : v / (A(1) - size);
    } else {
        v = mul(v, draw.template jitter<A>(token, h, size));
        if constexpr (Rounds) v = to_accumulate(from_accumulate<T>(v));
        if constexpr (Kind == input_noise::shared_jitter_twice) {
            v = mul(v, draw.template jitter<A>(token, hidden + h, size));
            if constexpr (Rounds) v = to_accumulate(from_accumulate<T>(v));
        }
        return v;
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER
