// The parameters of a layer, owned or borrowed.
//
//     weights<L>       tensors in the hub's fused layout       weights_view<L>   the same, over memory of the caller
//     gradients<L>     accumulate_t of the same extents
#pragma once

#include <cmath>

#include <gatefold/core/math.hpp>
#include <gatefold/core/random.hpp>
#include <gatefold/core/tensor.hpp>
#include <gatefold/moe/parameters.hpp>

namespace gatefold::inline v0 {
namespace detail {

template <backend B>
struct owning {
    template <class T, int... E>
    using slot = basic_tensor<B, T, E...>;
    template <class T, int... E>
    using gradient_slot = basic_tensor<B, accumulate_t<T>, E...>;
    template <class T, int... E>
    using view_slot = basic_view<B, const T, E...>;
};

}  // namespace detail

/// One expert's parameters: views into weights. `gate_up` holds the rows of `up` where the expert has no gate.
template <class T, backend B = cpu>
struct expert_view {
    basic_view<B, T, dyn, dyn> gate_up, down;
    basic_view<B, T, dyn> gate_up_bias, down_bias;
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <backend B, class Set>
auto view_expert(Set& set, int e) {
    using L = typename std::remove_const_t<Set>::layer_type;
    require(e >= 0 && e < L::local_experts, "weights::expert", "expert", "an index below the number of experts", e);
    auto* up = [&] {
        if constexpr (L::is_gated)
            return set.gate_up.data();
        else
            return set.up.data();
    }();
    using T = std::remove_pointer_t<decltype(up)>;
    const index_t rows = L::gate_up_rows, width = L::width, ffn = L::ffn;
    expert_view<T, B> one;
    one.gate_up = {up + e * rows * width, {rows, width}};
    one.down = {set.down.data() + e * width * ffn, {width, ffn}};
    if constexpr (L::c.bias) {
        one.gate_up_bias = {set.gate_up_bias.data() + e * rows, {rows}};
        one.down_bias = {set.down_bias.data() + e * width, {width}};
    }
    return one;
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0 {

/// The parameters of layer L in tensors of backend B.
template <layer_type L, backend B = cpu>
struct weights : parameter_set<L, detail::owning<B>::template slot> {
    using backend = B;
    /// Views of expert e; throws argument_error for an e that the layer does not hold.
    GATEFOLD_INLINE auto expert(int e) { return detail::view_expert<B>(*this, e); }
    GATEFOLD_INLINE auto expert(int e) const { return detail::view_expert<B>(*this, e); }
};

/// The parameters of layer L in memory that somebody else owns, a mapped file for instance.
template <layer_type L, backend B = cpu>
struct weights_view : parameter_set<L, detail::owning<B>::template view_slot> {
    using backend = B;
    weights_view() = default;
    GATEFOLD_INLINE weights_view(const weights<L, B>& w) {
        const auto borrow = [](const char*, auto& mine, const auto& theirs) { mine = theirs.view(); };
        for_each_parameter(borrow, *this, w);
        for_each_buffer(borrow, *this, w);
    }
    GATEFOLD_INLINE auto expert(int e) const { return detail::view_expert<B>(*this, e); }
};

/// weights, weights_view and packed: whatever carries the parameters of a layer to a call.
template <class W>
concept layer_weights = requires {
    typename W::layer_type;
    typename W::backend;
};

/// A starting point of the counter generator.
struct seed {
    std::uint64_t value = 0;
};

/// The gradients of layer L's parameters, kept in accumulate_t of each parameter's type.
template <layer_type L, backend B = cpu>
struct gradients : parameter_set<L, detail::owning<B>::template gradient_slot> {
    using backend = B;
    GATEFOLD_INLINE auto expert(int e) { return detail::view_expert<B>(*this, e); }
    GATEFOLD_INLINE auto expert(int e) const { return detail::view_expert<B>(*this, e); }
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <class Set, class Context>
void allocate_slots(Set& set, Context& ctx) {
    const auto make = [&](const char*, auto& slot) {
        using tensor_type = std::remove_reference_t<decltype(slot)>;
        slot = static_tensor<tensor_type>::make(ctx);
    };
    for_each_parameter(make, set);
    for_each_buffer(make, set);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Weights of layer L, every element zero.
template <layer_type L, backend B>
weights<L, B> make_weights(context<B>& ctx) {
    weights<L, B> w;
    detail::allocate_slots(w, ctx);
    return w;
}

/// Gradients of layer L, every element zero.
template <layer_type L, backend B>
gradients<L, B> make_gradients(context<B>& ctx) {
    gradients<L, B> g;
    detail::allocate_slots(g, ctx);
    return g;
}

/// Weights of layer L drawn from N(0, 1/fan_in) times `gain`, biases and controller state zero, scales one.
///
/// The draw of an element depends on the seed, the layer number, the parameter and the element's place alone.
template <layer_type L>
weights<L, cpu> random_weights(context<cpu>& ctx, seed s, int layer_number = 0, double gain = 1) {
    weights<L, cpu> w = make_weights<L>(ctx);
    std::uint64_t parameter = 0;
    for_each_parameter(
        [&](const char*, auto& slot) {
            using slot_type = std::remove_reference_t<decltype(slot)>;
            using T = typename slot_type::value_type;
            const counter_rng draw{s.value, parameter++, layer_number};
            T* to = slot.data();
            if constexpr (slot_type::rank == 1) {
                // Vectors that scale start at one, vectors that add at zero: see below.
                for (index_t i = 0; i < slot.size(); ++i) to[i] = from_accumulate<T>(accumulate_t<T>(0));
            } else {
                const index_t columns = slot.extent(slot_type::rank - 1), rows = slot.size() / columns;
                const double deviation = gain / std::sqrt(static_cast<double>(columns));
                for (index_t r = 0; r < rows; ++r)
                    for (index_t k = 0; k < columns; ++k)
                        to[r * columns + k] = from_accumulate<T>(static_cast<accumulate_t<T>>(
                            mul(deviation, draw.normal<double>(purpose::initialisation, r, k))));
            }
        },
        w);
    const auto ones = [](auto& slot) {
        if constexpr (is_present<std::remove_reference_t<decltype(slot)>>) {
            using T = typename std::remove_reference_t<decltype(slot)>::value_type;
            for (index_t i = 0; i < slot.size(); ++i) slot.data()[i] = from_accumulate<T>(accumulate_t<T>(1));
        }
    };
    ones(w.router_scale);
    ones(w.expert_scale);
    ones(w.latent_norm);
    ones(w.router_temperature);
    return w;
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
