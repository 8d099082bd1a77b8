// Experts with whole blocks of zero weights, which are neither stored nor read; activations that are zero (relu,
// relu_squared) spare the second projection's weights too where an expert has few rows.
//
//     weights<L> ── prune_blocks(ctx, w, fraction) ──> weights<L> ── pack_sparse(ctx, w) ──> sparse<L> ── forward
//     one expert at a time: make_sparse<L>(ctx), then pack_expert(ctx, s, e, ...) and pack_shared_expert(ctx, s, ...),
//     each source freed once it is packed
//
// Not part of gatefold/gatefold.hpp: include it beside that header. docs/sparsity.md says when it pays.
#pragma once

#include <gatefold/cpu/sparse/prune.hpp>
#include <gatefold/cpu/sparse/sparse.hpp>
#include <gatefold/cpu/wing.hpp>
#include <gatefold/moe/packed.hpp>
#include <gatefold/moe/sparse_form.hpp>

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Sets the blocks of least Euclidean norm to zero: of each expert's first and second projection, the shared expert's
/// included, round(fraction · number of blocks). Equal norms: the blocks that come first in memory.
///
/// Blocks:  32 outputs × 32 inputs; where there is a gate, the outputs are 16 gates and the ups of the same features.
/// The
///          same on every target, and whole blocks of sparse<L> on all of them.
/// Throws:  argument_error for a fraction outside [0, 1] or missing memory; w is untouched then.
template <layer_type L>
void prune_blocks(context<cpu>& ctx, weights<L, cpu>& w, double fraction) {
    require(fraction >= 0 && fraction <= 1, "prune_blocks", "fraction", "a number from 0 to 1", fraction);
    detail::check_weights("prune_blocks", w);
    detail::on_cpu::prune_layer(ctx, w, fraction);
}

/// A sparse layer whose experts are zero and store nothing; its other parameters are zero too.
template <layer_type L>
sparse<L> make_sparse(context<cpu>& ctx) {
    sparse<L> s;
    detail::allocate_slots(s, ctx);
    for (std::size_t e = 0; e < s.experts.size(); ++e) {
        if (e < std::size_t{L::local_experts})
            detail::on_cpu::clear_sparse_expert<detail::on_cpu::routed_expert<L>>(ctx, s.experts[e]);
        else
            detail::on_cpu::clear_sparse_expert<detail::on_cpu::shared_expert<L>>(ctx, s.experts[e]);
    }
    return s;
}

/// Packs the matrices of expert e without their blocks of zeros, after which their source is not needed any more.
///
/// Shapes:  gate_up [2F or F, W], down [W, F], rows without gaps.
/// Throws:  argument_error for an e that the layer does not hold or views that do not fit, std::bad_alloc; s is
///          untouched then.
template <layer_type L>
void pack_expert(context<cpu>& ctx, sparse<L>& s, int e,
                 std::type_identity_t<view<const typename L::value_type, dyn, dyn>> gate_up,
                 std::type_identity_t<view<const typename L::value_type, dyn, dyn>> down) {
    require(e >= 0 && e < L::local_experts, "pack_expert", "e", "an index below the number of experts", e);
    detail::check_matrices("pack_expert", gate_up, down, L::gate_up_rows, L::width, L::ffn);
    detail::sparse_blocks& to = s.experts[static_cast<std::size_t>(e)];
    require(to.panels.data() != nullptr, "pack_expert", "s", "a layer from make_sparse", "an empty one");
    detail::on_cpu::pack_sparse_expert(
        ctx, to, detail::on_cpu::sparse_expert<detail::on_cpu::routed_expert<L>>{gate_up.data(), down.data()});
}

/// Packs the matrices of the shared expert in the same way.
///
/// Shapes:  gate_up [2F or F, H], down [H, F] for the shared expert's F, rows without gaps.
/// Throws:  argument_error for views that do not fit, std::bad_alloc; s is untouched then.
template <layer_type L>
    requires(L::shared_ffn > 0)
void pack_shared_expert(context<cpu>& ctx, sparse<L>& s,
                        std::type_identity_t<view<const typename L::value_type, dyn, dyn>> gate_up,
                        std::type_identity_t<view<const typename L::value_type, dyn, dyn>> down) {
    detail::check_matrices("pack_shared_expert", gate_up, down, L::shared_gate_up_rows, L::hidden, L::shared_ffn);
    detail::sparse_blocks& to = s.experts.back();
    require(to.panels.data() != nullptr, "pack_shared_expert", "s", "a layer from make_sparse", "an empty one");
    detail::on_cpu::pack_sparse_expert(
        ctx, to, detail::on_cpu::sparse_expert<detail::on_cpu::shared_expert<L>>{gate_up.data(), down.data()});
}

/// Packs a layer without its blocks of zeros. A block that holds a -0 or anything else is stored.
///
/// Memory while packing: the weights and what is stored.
/// Throws:  argument_error for missing memory, std::bad_alloc.
template <layer_weights W, layer_type L = typename W::layer_type>
sparse<L> pack_sparse(context<cpu>& ctx, const W& w) {
    static_assert(!is_packed<W> && __is_same(typename W::backend, cpu),
                  "gatefold::pack_sparse: takes weights or weights_view in host memory");
    detail::check_weights("pack_sparse", w);
    sparse<L> s;
    detail::allocate_slots(s, ctx);
    const auto copy = [&](const char*, auto& to, const auto& from) { detail::impl<cpu>::copy(ctx, to, from); };
    for_each_parameter(copy, s, w);
    for_each_buffer(copy, s, w);
    detail::on_cpu::pack_sparse_layer<L>(ctx, s, w);
    return s;
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
