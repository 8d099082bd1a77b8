// The parameters of a layer, named once: weights, gradients, optimiser state and borrowed views are this list with
// another kind of slot. A parameter that the configuration does not have takes no space.
//
// Names and layouts are the fused ones of published checkpoints: matrices are [out, in], gate rows before up rows.
#pragma once

#include <gatefold/core/backend.hpp>
#include <gatefold/moe/layer.hpp>

namespace gatefold::inline v0 {
namespace detail {

/// The place of a parameter that the configuration does not have; the number keeps such places apart.
template <int Place>
struct absent {};

template <bool Present, int Place, template <class, int...> class Slot, class T, int... E>
struct slot_if {
    using type = absent<Place>;
};
template <int Place, template <class, int...> class Slot, class T, int... E>
struct slot_if<true, Place, Slot, T, E...> {
    using type = Slot<T, E...>;
};

}  // namespace detail

/// Whether a member of a parameter set holds something in this configuration.
template <class S>
inline constexpr bool is_present = true;
template <int Place>
inline constexpr bool is_present<detail::absent<Place>> = false;

/// Every parameter of layer L in a slot of its type and extents. `Matrices` false leaves the large matrices of experts
/// out, for representations that hold them in another form.
template <layer_type L, template <class, int...> class Slot, bool Matrices = true>
struct parameter_set {
private:
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    using R = typename L::router_type;
    static constexpr config c = L::c;
    static constexpr int E = L::local_experts, N = L::choices, H = L::hidden, W = L::width,
                         P = c.router.projection_width;
    static constexpr bool routed = !L::is_dense,
                          deep = c.router.logits == projection::two_layer || c.router.logits == projection::cosine;
    static constexpr bool shared = c.shared.ffn > 0;
    template <bool Present, int Place, class U, int... X>
    using slot = typename detail::slot_if<Present, Place, Slot, U, X...>::type;

public:
    using layer_type = L;

    // Router.
    [[no_unique_address]] slot<routed && deep, 0, R, P, H> router_projection;
    [[no_unique_address]] slot<routed && c.router.logits == projection::linear, 1, R, N, H> router;
    [[no_unique_address]] slot<routed && deep, 2, R, N, P> router_head;
    [[no_unique_address]] slot<routed && c.router.logits == projection::cosine, 3, A, 1> router_temperature;
    [[no_unique_address]] slot<routed && c.router.bias, 4, R, N> router_bias;
    [[no_unique_address]] slot<routed && c.router.input == router_input::rms_norm, 5, R, H> router_scale;
    [[no_unique_address]] slot<routed && c.router.expert_scale, 6, R, N> expert_scale;
    [[no_unique_address]] slot<routed && c.router.transform == logit_transform::noisy_top_k, 7, R, N, H> router_noise;
    [[no_unique_address]] slot<routed && c.router.transform == logit_transform::residual, 8, R, N, N> router_residual;
    // State of a balancing controller: stored, not trained.
    [[no_unique_address]] slot<routed && c.router.selection_bias != key_bias::none, 9, A, N> selection_bias;
    // What backward takes for the outputs of experts that were not run: stored, a running mean.
    [[no_unique_address]] slot<routed && c.router.learns_from == estimator::default_vectors, 25, A, E, W>
        default_vectors;

    // Experts: gate_up [E, 2F, W] with a gate, up [E, F, W] without.
    [[no_unique_address]] slot<Matrices && L::is_gated, 10, T, E, 2 * L::ffn, W> gate_up;
    [[no_unique_address]] slot<Matrices && !L::is_gated, 11, T, E, L::ffn, W> up;
    [[no_unique_address]] slot<Matrices, 12, T, E, W, L::ffn> down;
    [[no_unique_address]] slot<c.bias, 13, T, E, L::gate_up_rows> gate_up_bias;
    [[no_unique_address]] slot<c.bias, 14, T, E, W> down_bias;

    // Shared expert.
    [[no_unique_address]] slot<Matrices && shared, 15, T, L::shared_gate_up_rows, H> shared_gate_up;
    [[no_unique_address]] slot<Matrices && shared, 16, T, H, c.shared.ffn> shared_down;
    [[no_unique_address]] slot<shared && c.shared.bias, 17, T, L::shared_gate_up_rows> shared_gate_up_bias;
    [[no_unique_address]] slot<shared && c.shared.bias, 18, T, H> shared_down_bias;
    [[no_unique_address]] slot<c.shared.gate, 19, T, H> shared_gate;

    // Experts on a projection of the tokens.
    [[no_unique_address]] slot<(c.latent > 0), 20, T, c.latent, H> latent_down;
    [[no_unique_address]] slot<(c.latent > 0), 21, T, H, c.latent> latent_up;
    [[no_unique_address]] slot<c.latent_norm, 22, T, c.latent> latent_norm;

    // Experts that return a1 x + a2 v, (a1, a2) = softmax(constant_gate x).
    [[no_unique_address]] slot<(c.free.constant > 0), 23, T, c.free.constant, 2, H> constant_gate;
    [[no_unique_address]] slot<(c.free.constant > 0), 24, T, c.free.constant, H> constant_value;
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <class F, class First, class... Rest>
constexpr void visit_slot(F&& f, const char* name, First&& first, Rest&&... rest) {
    if constexpr (is_present<std::remove_cvref_t<First>>) f(name, first, rest...);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Calls f(name, slot of each set...) for every parameter that is trained, in a fixed order. Several sets of one layer
/// are walked together, over what the first of them has: for_each_parameter(step, weights, gradients).
template <class F, class... Sets>
constexpr void for_each_parameter(F&& f, Sets&&... s) {
    detail::visit_slot(f, "router_projection", s.router_projection...);
    detail::visit_slot(f, "router", s.router...);
    detail::visit_slot(f, "router_head", s.router_head...);
    detail::visit_slot(f, "router_temperature", s.router_temperature...);
    detail::visit_slot(f, "router_bias", s.router_bias...);
    detail::visit_slot(f, "router_scale", s.router_scale...);
    detail::visit_slot(f, "expert_scale", s.expert_scale...);
    detail::visit_slot(f, "router_noise", s.router_noise...);
    detail::visit_slot(f, "router_residual", s.router_residual...);
    detail::visit_slot(f, "gate_up", s.gate_up...);
    detail::visit_slot(f, "up", s.up...);
    detail::visit_slot(f, "down", s.down...);
    detail::visit_slot(f, "gate_up_bias", s.gate_up_bias...);
    detail::visit_slot(f, "down_bias", s.down_bias...);
    detail::visit_slot(f, "shared_gate_up", s.shared_gate_up...);
    detail::visit_slot(f, "shared_down", s.shared_down...);
    detail::visit_slot(f, "shared_gate_up_bias", s.shared_gate_up_bias...);
    detail::visit_slot(f, "shared_down_bias", s.shared_down_bias...);
    detail::visit_slot(f, "shared_gate", s.shared_gate...);
    detail::visit_slot(f, "latent_down", s.latent_down...);
    detail::visit_slot(f, "latent_up", s.latent_up...);
    detail::visit_slot(f, "latent_norm", s.latent_norm...);
    detail::visit_slot(f, "constant_gate", s.constant_gate...);
    detail::visit_slot(f, "constant_value", s.constant_value...);
}

/// Calls f(name, slot of each set...) for every parameter that is stored but not trained by gradients.
template <class F, class... Sets>
constexpr void for_each_buffer(F&& f, Sets&&... s) {
    detail::visit_slot(f, "selection_bias", s.selection_bias...);
    detail::visit_slot(f, "default_vectors", s.default_vectors...);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
