// Dropout on the activations inside experts, in training.
//
//     activation ── · 0 with probability p, else · 1 / (1 - p) ──> down projection
//
// Drawn anew in backward: what a row keeps is a function of its token, expert and feature, so it has the same bits for
// any number of threads, any split of the batch and any order of rows.
#pragma once

#include <cstdint>

#include <gatefold/cpu/draws.hpp>
#include <gatefold/moe/call.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// What stages of layers without dropout are given.
struct no_dropout {
    GATEFOLD_INLINE no_dropout of_expert(index_t, index_t) const { return {}; }
    template <class V>
    GATEFOLD_INLINE V apply(V values, index_t, index_t, index_t) const {
        return values;
    }
};

/// Dropout of one call; of_expert() makes it that of one expert, whose rows begin with 0.
template <class A>
struct expert_dropout {
    A probability = 0;  ///< 0 at inference
    A factor = 1;
    counter_rng draw = {};
    index_t first_token = 0;
    const std::int32_t* pairs = nullptr;  ///< (token, slot) of each row, null: row r is token r
    int slots = 1, ffn = 0;
    index_t first_index = 0, first_row = 0;

    GATEFOLD_INLINE expert_dropout of_expert(index_t e, index_t begin) const {
        expert_dropout one = *this;
        one.first_index = e * ffn;
        one.first_row = begin;
        return one;
    }

    /// The features f, f + 1, ... of a row, of which `left` exist.
    GATEFOLD_INLINE vec<A> apply(vec<A> values, index_t row, index_t f, index_t left) const {
        if (!(probability > 0) || left <= 0) return values;
        const index_t r = first_row + row, token = first_token + (pairs ? pairs[r] / slots : r);
        token_draws<A, lanes<float> / 2> draws(draw, purpose::expert_dropout, token);
        const auto dropped = draws.uniform_from_zero(first_index + f) < broadcast<A>(probability);
        return mul(values, number<vec<A>>::select(dropped, zeros<A>(), broadcast<A>(factor)));
    }
};

/// The dropout of the routed experts of a layer, for rows that are pairs / slots, or tokens.
template <layer_type L>
GATEFOLD_INLINE auto dropout_of(const options<L>& o, index_t first_token, const std::int32_t* pairs, int slots) {
    using A = typename L::accumulate_type;
    if constexpr (L::c.dropout > 0) {
        const A p = o.training ? static_cast<A>(o.dropout) : A(0);
        return expert_dropout<A>{
            p, A(1) / (A(1) - p), {o.seed, o.step, static_cast<int>(o.layer)}, first_token, pairs, slots, L::ffn};
    } else {
        return no_dropout{};
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
