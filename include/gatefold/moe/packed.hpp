// Weights in the order in which the kernels read them, made once for speed.
//
//     weights<L> ── pack(ctx, w) ──> packed<L> ── forward: the same bits as from weights<L>
//     one expert at a time: make_packed<L>(ctx), then pack_expert(ctx, p, e, ...) and pack_shared_expert(ctx, p, ...),
//     each source freed once it is packed: packed form and one expert are in memory, never all weights
#pragma once

#include <cstddef>

#include <gatefold/moe/check.hpp>
#include <gatefold/moe/seam.hpp>
#include <gatefold/moe/weights.hpp>

namespace gatefold::inline v0 {

/// The parameters of layer L with the matrices of the experts in packed form; Element is the type they are packed in.
/// Router, biases and everything else small are as in weights<L>.
template <layer_type L, backend B = cpu, class Element = typename L::value_type>
struct packed : parameter_set<L, detail::owning<B>::template slot, false> {
    using backend = B;
    using element_type = Element;

    /// Packed matrices: routed experts in order, then the shared expert.
    basic_tensor<B, std::byte, dyn> matrices;
};

template <class W>
inline constexpr bool is_packed = false;
template <layer_type L, backend B, class Element>
inline constexpr bool is_packed<packed<L, B, Element>> = true;

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// Throws unless these are the matrices of one expert, rows without gaps.
template <class View>
void check_matrices(const char* function, const View& gate_up, const View& down, int rows, int width, int ffn) {
    check_view(function, "gate_up", gate_up, rows);
    check_view(function, "down", down, width);
    require(gate_up.extent(1) == width, function, "gate_up", width, gate_up.extent(1));
    require(down.extent(1) == ffn, function, "down", ffn, down.extent(1));
    require(gate_up.is_contiguous() && down.is_contiguous(), function, "matrices", "rows without gaps", "gaps");
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// A packed layer with room for every expert and none in it yet; its other parameters are zero.
template <layer_type L, backend B>
packed<L, B> make_packed(context<B>& ctx) {
    packed<L, B> p;
    detail::allocate_slots(p, ctx);
    const std::size_t bytes = detail::impl<B>::template packed_bytes<L>();
    p.matrices = make_tensor<std::byte, dyn>(ctx, static_cast<index_t>(bytes));
    return p;
}

/// Packs the matrices of expert e, after which their source is not needed any more.
///
/// Shapes:  gate_up [2F or F, W], down [W, F], rows without gaps.
/// Throws:  argument_error for an e that the layer does not hold or views that do not fit; p is untouched then.
template <layer_type L, backend B>
void pack_expert(context<B>& ctx, packed<L, B>& p, int e,
                 std::type_identity_t<basic_view<B, const typename L::value_type, dyn, dyn>> gate_up,
                 std::type_identity_t<basic_view<B, const typename L::value_type, dyn, dyn>> down) {
    require(e >= 0 && e < L::local_experts, "pack_expert", "e", "an index below the number of experts", e);
    detail::check_matrices("pack_expert", gate_up, down, L::gate_up_rows, L::width, L::ffn);
    require(p.matrices.data() != nullptr, "pack_expert", "p", "a layer from make_packed", "an empty one");
    detail::impl<B>::template pack_expert<L>(ctx, p, e, gate_up.data(), down.data());
}

/// Packs the matrices of the shared expert, after which their source is not needed any more.
///
/// Shapes:  gate_up [2F or F, H], down [H, F] for the shared expert's F, rows without gaps.
/// Throws:  argument_error for views that do not fit; p is untouched then.
template <layer_type L, backend B>
    requires(L::shared_ffn > 0)
void pack_shared_expert(context<B>& ctx, packed<L, B>& p,
                        std::type_identity_t<basic_view<B, const typename L::value_type, dyn, dyn>> gate_up,
                        std::type_identity_t<basic_view<B, const typename L::value_type, dyn, dyn>> down) {
    detail::check_matrices("pack_shared_expert", gate_up, down, L::shared_gate_up_rows, L::hidden, L::shared_ffn);
    require(p.matrices.data() != nullptr, "pack_shared_expert", "p", "a layer from make_packed", "an empty one");
    detail::impl<B>::template pack_shared_expert<L>(ctx, p, gate_up.data(), down.data());
}

/// Packs a whole layer. Memory while packing: the weights and their packed form.
template <layer_weights W, backend B, layer_type L = typename W::layer_type>
packed<L, B> pack(context<B>& ctx, const W& w) {
    detail::check_weights("pack", w);
    packed<L, B> p = make_packed<L>(ctx);
    const auto copy = [&](const char*, auto& to, const auto& from) { detail::impl<B>::copy(ctx, to, from); };
    for_each_parameter(copy, p, w);
    for_each_buffer(copy, p, w);
    detail::impl<B>::template pack_all<L>(ctx, p, w);
    return p;
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
