// What an optimiser keeps for every parameter: the same list of names with slots of its own.
//
//     weights<L>, decoder_weights<D> ──> moments in the type sums are kept in; float masters of bf16 and f16 weights
#pragma once

#include <type_traits>

#include <gatefold/moe/weights.hpp>
#include <gatefold/nn/decoder.hpp>

namespace gatefold::inline v0 {

/// The place of a master copy that is not needed: the weight itself is wide enough.
struct no_master {};

namespace detail {

template <class T, int... E>
using master_slot = std::conditional_t<sizeof(T) == 2, tensor<float, E...>, no_master>;

struct master_kind {
    template <class T, int... E>
    using slot = master_slot<T, E...>;
    template <layer_type L>
    using layer_set = parameter_set<L, master_slot>;
};

template <class W>
struct state_sets;
template <layer_type L, backend B>
struct state_sets<weights<L, B>> {
    using moments = gradients<L, B>;
    using masters = parameter_set<L, master_slot>;
};
template <decoder_type D>
struct state_sets<decoder_weights<D>> {
    using moments = decoder_gradients<D>;
    using masters = decoder_parameter_set<D, master_kind>;
};

}  // namespace detail

/// Gradients of the weights W: gradients<L> of weights<L>, decoder_gradients<D> of decoder_weights<D>.
template <class W>
using gradients_of = typename detail::state_sets<W>::moments;
/// Masters of the weights W: float tensors where weights have two bytes, nothing elsewhere.
template <class W>
using masters_of = typename detail::state_sets<W>::masters;

/// Whether weight decay leaves a parameter alone: vectors, norms and biases, whatever their rank.
template <class Slot>
bool is_undecayed(const char* name) {
    const auto has = [name](const char* part) { return std::string_view(name).find(part) != std::string_view::npos; };
    return Slot::rank == 1 || has("norm") || has("bias");
}

namespace detail::inline GATEFOLD_TIER {

/// Allocates masters and copies the weights into them.
template <class W>
masters_of<W> make_masters(context<cpu>& ctx, const W& w) {
    masters_of<W> masters;
    for_each_parameter(
        [&](const char*, const auto& slot, auto& master) {
            using master_type = std::remove_reference_t<decltype(master)>;
            if constexpr (!std::is_same_v<master_type, no_master>) {
                master = static_tensor<master_type>::make(ctx);
                for (index_t i = 0; i < slot.size(); ++i) master.data()[i] = to_accumulate(slot.data()[i]);
            }
        },
        w, masters);
    return masters;
}

}  // namespace detail::inline GATEFOLD_TIER
}  // namespace gatefold::inline v0
