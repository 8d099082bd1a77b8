// The CPU's side of the seam: which function of this wing carries out which stage.
#pragma once

#include <cstring>

#include <gatefold/cpu/backward/backward.hpp>
#include <gatefold/cpu/default_vectors.hpp>
#include <gatefold/cpu/forward.hpp>
#include <gatefold/cpu/losses/losses.hpp>
#include <gatefold/cpu/plan.hpp>
#include <gatefold/cpu/stages.hpp>
#include <gatefold/moe/experts.hpp>
#include <gatefold/moe/seam.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <>
struct impl<cpu> {
    template <class W, layer_type L = typename W::layer_type>
    static void forward(context<cpu>& ctx, const W& w, const batch<L>& in, const output_of<W>& y,
                        std::type_identity_t<tape<L>*> saved, const options<L>& o) {
        GATEFOLD_HOST_ONLY(on_cpu::layer_forward(ctx, w, in, y, saved, o);)
    }
    /// Inference of one token by weights with has_short_calls.
    template <class W, layer_type L = typename W::layer_type>
    static void forward_token(context<cpu>& ctx, const W& w, const typename L::value_type* x, typename L::value_type* y,
                              const options<L>& o) {
        GATEFOLD_HOST_ONLY(on_cpu::forward_one_token<W>(ctx, w, {x, x}, y, o);)
    }
    template <layer_type L>
    static constexpr std::size_t forward_bytes(index_t tokens, int threads) {
        return on_cpu::forward_bytes<L>(tokens, threads);
    }

    template <class W, layer_type L = typename W::layer_type>
    static void backward(context<cpu>& ctx, const W& w, const batch<L>& in, tape<L>& saved, const input_of<W>& dy,
                         const output_of<W>& dx, gradients<L>& g, const options<L>& o) {
        GATEFOLD_HOST_ONLY(on_cpu::layer_backward(ctx, w, in, saved, dy, dx, g, o);)
    }
    template <layer_type L>
    static constexpr std::size_t training_bytes(index_t tokens, int threads) {
        const std::size_t forward = on_cpu::forward_bytes<L>(tokens, threads);
        const std::size_t backward = on_cpu::backward_bytes<L>(tokens, threads);
        return forward > backward ? forward : backward;
    }

    template <class Loss, layer_type L>
    static double add_loss(context<cpu>& ctx, const Loss& loss, tape<L>* const* tapes, int count, const batch<L>& in) {
        return on_cpu::add_loss(ctx, loss, tapes, count, in);
    }

    template <layer_type L>
    static void update_default_vectors(context<cpu>& ctx, const output_average& controller, weights<L>& w,
                                       const batch<L>& in, tape<L>& saved, const options<L>& o) {
        GATEFOLD_HOST_ONLY(on_cpu::update_default_vectors(ctx, controller, w, in, saved, o);)
    }

    template <class To, class From>
    static void copy(context<cpu>&, To& to, const From& from) {
        std::memcpy(to.data(), from.data(), static_cast<std::size_t>(to.size()) * sizeof(*to.data()));
    }

    template <layer_type L>
    static constexpr std::size_t packed_bytes() {
        return on_cpu::packed_layer_bytes<L>();
    }
    template <layer_type L>
    static void pack_expert(context<cpu>&, packed<L>& p, int e, const typename L::value_type* gate_up,
                            const typename L::value_type* down) {
        on_cpu::pack_expert<on_cpu::routed_expert<L>, on_cpu::packed_around<L>>(
            gate_up, down, on_cpu::packed_at<L>(p.matrices.data(), e));
    }
    template <layer_type L>
    static void pack_shared_expert(context<cpu>&, packed<L>& p, const typename L::value_type* gate_up,
                                   const typename L::value_type* down) {
        on_cpu::pack_expert<on_cpu::shared_expert<L>, on_cpu::packed_around<L>>(
            gate_up, down, on_cpu::packed_at<L>(p.matrices.data(), L::local_experts));
    }
    template <layer_type L, class W>
    static void pack_all(context<cpu>& ctx, packed<L>& p, const W& w) {
        on_cpu::pack_layer<L>(ctx, p, w);
    }

    template <class W, layer_type L = typename W::layer_type>
    static void experts(context<cpu>& ctx, const W& w, const batch<L>& in, const plan_view<cpu>& plan,
                        const routing_view<L>& routing, const view<expert_sum<L>, dyn, L::width>& z,
                        const options<L>& o) {
        GATEFOLD_HOST_ONLY(on_cpu::experts_stage(ctx, w, in, plan, routing, z, o);)
    }
    template <class W, layer_type L = typename W::layer_type>
    static void combine(context<cpu>& ctx, const W& w, const batch<L>& in, const plan_view<cpu>& plan,
                        const routing_view<L>& routing, const view<const expert_sum<L>, dyn, L::width>& z,
                        const output_of<W>& y, const options<L>& o) {
        GATEFOLD_HOST_ONLY(on_cpu::combine_stage(ctx, w, in, plan, routing, z, y, o);)
    }

    template <layer_type L>
    static void make_plan(context<cpu>& ctx, const std::int32_t* ids, const std::uint8_t* kept,
                          const plan_view<cpu>& out) {
        std::byte* scratch = ctx.workspace(on_cpu::plan_scratch_bytes(L::choices, ctx.threads()));
        on_cpu::build_plan(ctx, ids, kept, L::choices, out, scratch);
    }
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER
