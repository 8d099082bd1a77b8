// CUDA's side of the seam: which function of this wing carries out which stage. Included by gatefold.hpp alone, where
// the compiler is nvcc.
#pragma once

#include <gatefold/cuda/forward.cuh>
#include <gatefold/cuda/stages.cuh>
#include <gatefold/moe/experts.hpp>
#include <gatefold/moe/seam.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <>
struct impl<cuda> {
    template <class W, layer_type L = typename W::layer_type>
    static void forward(context<cuda>& ctx, const W& w, const batch<L, cuda>& in, const output_of<W>& y,
                        std::type_identity_t<tape<L, cuda>*> saved, const options<L>& o) {
        on_cuda::layer_forward(ctx, w, in, y, saved, o);
        ctx.end_call("forward");
    }
    template <layer_type L>
    static constexpr std::size_t forward_bytes(index_t tokens, int) {
        return on_cuda::forward_bytes<L>(tokens);
    }
    template <layer_type L>
    static constexpr std::size_t training_bytes(index_t tokens, int) {
        return on_cuda::forward_bytes<L>(tokens);
    }

    template <class To, class From>
    static void copy(context<cuda>& ctx, To& to, const From& from) {
        copy_slot(ctx, to, from);
    }

    template <layer_type L>
    static constexpr std::size_t packed_bytes() {
        return sizeof(typename L::value_type) * static_cast<std::size_t>(on_cuda::packed_places<L>::elements);
    }
    template <layer_type L>
    static void pack_expert(context<cuda>& ctx, packed<L, cuda>& p, int e, const typename L::value_type* gate_up,
                            const typename L::value_type* down) {
        const on_cuda::call_scope scope(ctx, "pack_expert");
        on_cuda::check_pack("pack_expert", p, gate_up, down, ctx.device());
        using T = typename L::value_type;
        using kind = on_cuda::routed_kind<L>;
        T* to = reinterpret_cast<T*>(p.matrices.data());
        on_cuda::pack_experts<kind>(ctx, {gate_up, down}, to + e * kind::packed_up,
                                    to + on_cuda::packed_places<L>::down + e * kind::packed_down, 1);
        ctx.end_call("pack_expert");
    }
    template <layer_type L>
    static void pack_shared_expert(context<cuda>& ctx, packed<L, cuda>& p, const typename L::value_type* gate_up,
                                   const typename L::value_type* down) {
        const on_cuda::call_scope scope(ctx, "pack_shared_expert");
        on_cuda::check_pack("pack_shared_expert", p, gate_up, down, ctx.device());
        using places = on_cuda::packed_places<L>;
        auto* to = reinterpret_cast<typename L::value_type*>(p.matrices.data());
        on_cuda::pack_experts<on_cuda::shared_kind<L>>(ctx, {gate_up, down}, to + places::shared_up,
                                                       to + places::shared_down, 1);
        ctx.end_call("pack_shared_expert");
    }
    template <layer_type L, class W>
    static void pack_all(context<cuda>& ctx, packed<L, cuda>& p, const W& w) {
        const on_cuda::call_scope scope(ctx, "pack");
        on_cuda::check_device_weights("pack", w, ctx.device());
        using T = typename L::value_type;
        using places = on_cuda::packed_places<L>;
        T* to = reinterpret_cast<T*>(p.matrices.data());
        on_cuda::pack_experts<on_cuda::routed_kind<L>>(ctx, on_cuda::routed_matrices(w), to, to + places::down,
                                                       L::local_experts);
        if constexpr (L::shared_ffn > 0)
            on_cuda::pack_experts<on_cuda::shared_kind<L>>(ctx, on_cuda::shared_matrices(w), to + places::shared_up,
                                                           to + places::shared_down, 1);
        ctx.end_call("pack");
    }

    template <class W, layer_type L = typename W::layer_type>
    static void experts(context<cuda>& ctx, const W& w, const batch<L, cuda>& in, const plan_view<cuda>& plan,
                        const routing_view<L, cuda>& routing,
                        const basic_view<cuda, expert_sum<L, cuda>, dyn, L::width>& z, const options<L>& o) {
        on_cuda::experts_stage(ctx, w, in, plan, routing, z, o);
        ctx.end_call("experts");
    }
    template <class W, layer_type L = typename W::layer_type>
    static void combine(context<cuda>& ctx, const W& w, const batch<L, cuda>& in, const plan_view<cuda>& plan,
                        const routing_view<L, cuda>& routing,
                        const basic_view<cuda, const expert_sum<L, cuda>, dyn, L::width>& z, const output_of<W>& y,
                        const options<L>& o) {
        on_cuda::combine_stage(ctx, w, in, plan, routing, z, y, o);
        ctx.end_call("combine");
    }

    template <layer_type L>
    static void make_plan(context<cuda>& ctx, const std::int32_t* ids, const std::uint8_t* kept,
                          const plan_view<cuda>& out) {
        const on_cuda::call_scope scope(ctx, "make_plan");
        if (out.tokens > 0) on_cuda::check_device_pointer("make_plan", "ids", ids, ctx.device());
        if (kept) on_cuda::check_device_pointer("make_plan", "kept", kept, ctx.device());
        on_cuda::check_device_plan("make_plan", out, ctx.device());
        const index_t pairs = out.tokens * out.slots;
        const auto groups = ceil_div(pairs, index_t{on_cuda::counted_pairs});
        auto* counts = reinterpret_cast<std::int32_t*>(
            ctx.workspace(static_cast<std::size_t>(groups * L::choices) * sizeof(std::int32_t)));
        on_cuda::make_plan<L::choices>(ctx, {ids, kept}, pairs, L::experts,
                                       {out.offsets.data(), out.rows.data(), out.place.data()}, counts);
        ctx.end_call("make_plan");
    }
};

template <>
struct routing_impl<cuda> {
    template <class W, layer_type L = typename W::layer_type>
    static void route(context<cuda>& ctx, const W& w, const batch<L, cuda>& in, const options<L>& o,
                      const routing_view<L, cuda>& out) {
        const on_cuda::call_scope scope(ctx, "route");
        on_cuda::check_device_batch("route", in, ctx.device());
        on_cuda::check_device_routing("route", out, ctx.device());
        on_cuda::check_device_weights("route", w, ctx.device());
        carver arrays(ctx.workspace(on_cuda::route_bytes<L>(in.x.extent(0))));
        const on_cuda::route_buffers<L> memory(arrays, in.x.extent(0));
        on_cuda::route(ctx, on_cuda::route_call<W>{w, in, o, out, memory, nullptr, nullptr, nullptr});
        ctx.end_call("route");
    }
    template <layer_type L>
    static void apply_capacity(context<cuda>& ctx, const batch<L, cuda>& in, const options<L>& o,
                               const routing_view<L, cuda>& routing, const basic_view<cuda, std::uint8_t, dyn>& kept) {
        const on_cuda::call_scope scope(ctx, "apply_capacity");
        on_cuda::check_device_batch("apply_capacity", in, ctx.device());
        on_cuda::check_device_routing("apply_capacity", routing, ctx.device());
        on_cuda::check_device_memory("apply_capacity", "kept", kept, ctx.device());
        on_cuda::apply_capacity(ctx, in, o, routing, kept.data());
        ctx.end_call("apply_capacity");
    }
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER
