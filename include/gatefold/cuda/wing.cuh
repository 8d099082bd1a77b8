// CUDA's side of the seam: which function of this wing carries out which stage. Included by gatefold.hpp alone, where
// the compiler is nvcc.
#pragma once

#include <gatefold/cuda/forward.cuh>
#include <gatefold/moe/seam.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <>
struct impl<cuda> {
    template <class W, layer_type L = typename W::layer_type>
    static void forward(context<cuda>& ctx, const W& w, const batch<L, cuda>& in, const output_of<W>& y,
                        std::type_identity_t<tape<L, cuda>*> saved, const options<L>& o) {
        on_cuda::layer_forward(ctx, w, in, y, saved, o);
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
        gatefold::copy(ctx, to, from);
    }

    template <layer_type L>
    static constexpr std::size_t packed_bytes() {
        return sizeof(typename L::value_type) *
               static_cast<std::size_t>(on_cuda::routed_elements<L> + index_t{L::local_experts} * L::width * L::ffn +
                                        index_t{L::shared_gate_up_rows + L::shared_ffn} * L::hidden);
    }
    template <layer_type L>
    static void pack_expert(context<cuda>& ctx, packed<L, cuda>& p, int e, const typename L::value_type* gate_up,
                            const typename L::value_type* down) {
        using T = typename L::value_type;
        constexpr index_t up = index_t{L::gate_up_rows} * L::width, lower = index_t{L::width} * L::ffn;
        T* to = reinterpret_cast<T*>(p.matrices.data());
        copy_rows(ctx, to + e * up, up, gate_up, up, 1, up, false);
        copy_rows(ctx, to + on_cuda::routed_elements<L> + e * lower, lower, down, lower, 1, lower, false);
    }
    template <layer_type L, class W>
    static void pack_all(context<cuda>& ctx, packed<L, cuda>& p, const W& w) {
        using T = typename L::value_type;
        constexpr index_t up = on_cuda::routed_elements<L>, down = index_t{L::local_experts} * L::width * L::ffn;
        T* to = reinterpret_cast<T*>(p.matrices.data());
        const auto m = on_cuda::routed_matrices(w);
        copy_rows(ctx, to, up, m.up, up, 1, up, false);
        copy_rows(ctx, to + up, down, m.down, down, 1, down, false);
        if constexpr (L::shared_ffn > 0) {
            constexpr index_t shared_up = index_t{L::shared_gate_up_rows} * L::hidden;
            constexpr index_t shared_down = index_t{L::hidden} * L::shared_ffn;
            const auto s = on_cuda::shared_matrices(w);
            copy_rows(ctx, to + up + down, shared_up, s.up, shared_up, 1, shared_up, false);
            copy_rows(ctx, to + up + down + shared_up, shared_down, s.down, shared_down, 1, shared_down, false);
        }
    }

    template <layer_type L>
    static void make_plan(context<cuda>& ctx, const std::int32_t* ids, const plan_view<cuda>& out) {
        const device_scope scope(ctx.device());
        const index_t pairs = out.tokens * out.slots;
        const auto groups = ceil_div(pairs, index_t{on_cuda::counted_pairs});
        auto* counts = reinterpret_cast<std::int32_t*>(
            ctx.workspace(static_cast<std::size_t>(groups * L::choices) * sizeof(std::int32_t)));
        on_cuda::make_plan<L::choices>(ctx, {ids, nullptr}, pairs, L::experts,
                                       {out.offsets.data(), out.rows.data(), out.place.data()}, counts);
    }
};

template <>
struct routing_impl<cuda> {
    template <class W, layer_type L = typename W::layer_type>
    static void route(context<cuda>& ctx, const W& w, const batch<L, cuda>& in, const options<L>& o,
                      const routing_view<L, cuda>& out) {
        static_assert(on_cuda::check_supported<L>());
        const device_scope scope(ctx.device());
        on_cuda::route(ctx, on_cuda::policy_of<L>{}, w, in, o, out, nullptr, nullptr);
    }
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER
