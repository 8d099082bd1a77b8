// What belongs to one call: the tokens and what is known of them, and the numbers that may change from call to call.
#pragma once

#include <cstdint>
#include <type_traits>

#include <gatefold/core/view.hpp>
#include <gatefold/moe/weights.hpp>

namespace gatefold::inline v0 {

/// The tokens of a call, and where a router, a capacity or a loss needs it, what is known of them.
template <layer_type L, backend B = cpu>
struct batch {
    template <class T, int... E>
    using rows = basic_view<B, const T, dyn, E...>;

    rows<typename L::value_type, L::hidden> x;              ///< [T, H] what the experts read
    rows<typename L::value_type, L::hidden> router_x = {};  ///< [T, H] what the router reads, where it is not x
    /// [T, H] where backward writes the gradient of router_x; without it that gradient is not kept (dx never has it).
    basic_view<B, typename L::value_type, dyn, L::hidden> router_x_gradients = {};
    rows<std::int32_t> token_ids = {};         ///< [T] vocabulary ids, for routing by table
    rows<std::uint8_t> mask = {};              ///< [T] 1 a token, 0 padding: losses and statistics skip it
    rows<std::int32_t> sequence_starts = {};   ///< [n] first token of each sequence, ascending from 0
    rows<std::int32_t, L::slots> chosen = {};  ///< [T, S] ids given from outside, -1 for an empty slot
    index_t first_token = 0;                   ///< number of the first token, for noise under batch splits
    /// [T, N] logits of the MoE layer below, for residual routers; without them nothing is added.
    rows<typename L::accumulate_type, L::choices> previous_logits = {};
    /// [T, N] where backward adds the gradient of previous_logits: the logit_gradients of the tape of the layer below.
    basic_view<B, typename L::accumulate_type, dyn, L::choices> previous_logit_gradients = {};
};

/// Numbers of a call. The defaults are the configuration's.
template <layer_type L>
struct options {
    double scale = L::c.router.scale;
    float epsilon = L::c.router.epsilon;
    float limit = L::c.limit;
    float shared_limit = L::c.shared.limit;
    float noise = L::c.router.noise;
    float threshold = L::c.router.threshold;
    float capacity_factor = L::c.capacity.factor;
    float dropout = L::c.dropout;
    std::uint64_t seed = 0;
    std::uint32_t step = 0;
    std::uint32_t layer = 0;
    bool training = false;    ///< noise and training-only choices are on
    bool accumulate = false;  ///< add to y, or to the gradients, instead of overwriting
};

// nvcc deduces nothing through these views: hence type_identity.
template <class W>
using input_of = std::type_identity_t<
    basic_view<typename W::backend, const typename W::layer_type::value_type, dyn, W::layer_type::hidden>>;
template <class W>
using output_of = std::type_identity_t<
    basic_view<typename W::backend, typename W::layer_type::value_type, dyn, W::layer_type::hidden>>;

/// The result of routing T tokens.
///
/// ids [T, S] in key order, -1 for an empty slot; weights [T, S], zero where the slot is empty or dropped; logits [T,
/// N] as the selection and the scores saw them.
template <layer_type L, backend B = cpu>
struct routing_view {
    using A = typename L::accumulate_type;
    basic_view<B, std::int32_t, dyn, L::slots> ids;
    basic_view<B, A, dyn, L::slots> weights;
    basic_view<B, A, dyn, L::choices> logits;
};

}  // namespace gatefold::inline v0
