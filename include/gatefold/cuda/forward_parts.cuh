// The parts of forward on CUDA, between which memory may be the caller's: what experts read, their products, what
// follows.
#pragma once

#include <gatefold/cuda/combine.cuh>
#include <gatefold/cuda/experts/experts.cuh>
#include <gatefold/cuda/forward_memory.cuh>
#include <gatefold/cuda/latent.cuh>
#include <gatefold/cuda/router/route.cuh>
#include <gatefold/moe/tape.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

template <int Hidden, int Slots, class What, class T, class Out>
void run_combine(context<cuda>& ctx, What, const combine_arguments<T, Out>& a) {
    const auto launch = [&]<int Vector>() {
        constexpr int together = combine_tokens<Hidden, Vector>, vectors = combine_vectors<Hidden, Vector>;
        const dim3 grid(static_cast<unsigned>(ceil_div(a.tokens, int{together})),
                        unsigned{together > 1 ? 1 : ceil_div(int{vectors}, 256)});
        combine<T, Out, Hidden, Slots, What, Vector><<<grid, 256, 0, ctx.stream()>>>(a);
        check_kernel("forward: combine");
    };
    constexpr int wide = static_cast<int>(16 / sizeof(T));
    // Rows of 16-bit layers begin at whole vectors, or there is one row.
    if constexpr (Hidden % wide == 0 && sizeof(T) == 2)
        launch.template operator()<wide>();
    else if (Hidden % wide == 0 && a.y_stride % wide == 0 && a.x_stride % wide == 0)
        launch.template operator()<(Hidden % wide == 0 ? wide : 1)>();
    else
        launch.template operator()<1>();
}
/// The last step of a layer: what rows add up to, and the shared expert.
template <layer_type L, bool Routed>
using combine_for =
    combine_of<Routed ? L::experts : 0, Routed ? L::experts + L::c.free.constant : 0,
               Routed ? L::experts + L::c.free.constant + L::c.free.copy : 0, (Routed && L::choices > L::experts),
               (L::shared_ffn > 0 && (!Routed || L::c.latent == 0)), L::c.shared.gate && (!Routed || L::c.latent == 0),
               Routed && L::c.router.scaled == scale_at::output, Routed && L::c.router.acts_on == weight_at::blend>;

/// How experts multiply: in the way of their type. Others bring a stage of their own.
struct default_stage {
    template <class Kind, bool Packed, bool Factor, bool WithShared, class T>
    static void run(context<cuda>& ctx, const expert_matrices<T>& w, const grouped_product<T>& p, index_t pairs,
                    int experts, int tile_rows, const stage_output<T>& to, const expert_matrices<T>& shared = {}) {
        run_experts<Kind, Packed, Factor, WithShared>(ctx, w, p, pairs, experts, tile_rows, to, shared);
    }
};

/// Tokens as experts read them: with noise that they share with the router, in training.
template <layer_type L>
basic_view<cuda, const typename L::value_type, dyn, L::hidden> given_rows(context<cuda>& ctx, const batch<L, cuda>& in,
                                                                          const options<L>& o,
                                                                          const forward_memory<L>& memory) {
    using T = typename L::value_type;
    constexpr int H = L::hidden;
    if constexpr (shares_jitter(L::c)) {
        if (is_disturbed(o)) {
            const T* scale = nullptr;
            move_rows<T, T, T, H, router_input::tokens, L::c.router.noise_on, true>
                <<<static_cast<unsigned>(ceil_div(in.x.extent(0), index_t{8})), 256, 0, ctx.stream()>>>(
                    in.x.data(), in.x.row_stride(), scale, memory.given, row_pitch(H), static_cast<int>(in.x.extent(0)),
                    o.noise, draws_of(o), in.first_token);
            check_kernel("forward: noise");
            return {memory.given, {in.x.extent(0), H}, row_pitch(H)};
        }
    }
    return in.x;
}

/// Tokens as the layer's parts read them: the shared expert and its gate; copying experts; experts with weights.
template <class T>
struct token_rows {
    const T *given, *x, *in;
    index_t given_stride, x_stride, in_stride;
};

/// Noise that experts share with the router, and the product with k.
template <layer_type L>
token_rows<typename L::value_type> read_rows(context<cuda>& ctx, const batch<L, cuda>& in, const options<L>& o,
                                             const forward_memory<L>& memory) {
    using T = typename L::value_type;
    constexpr int H = L::hidden;
    const auto given = given_rows(ctx, in, o, memory);
    const T* x = given.data();
    index_t stride = given.row_stride();
    if constexpr (L::c.router.input_times_k) {
        multiply_rows<T, H><<<static_cast<unsigned>(in.x.extent(0)), 256, 0, ctx.stream()>>>(
            x, stride, memory.multiplied, static_cast<typename L::accumulate_type>(L::top_k));
        check_kernel("forward: tokens times k");
        x = memory.multiplied;
        stride = row_pitch(H);
    }
    return {given.data(), x, x, given.row_stride(), stride, stride};
}

/// The products of the routed experts: z[r] for every row of the plan. With the shared expert: behind the most rows
/// that the plan can have, what that returns for every token.
template <class Stage = default_stage, bool WithShared = false, class W, layer_type L = typename W::layer_type>
void routed_products(context<cuda>& ctx, const W& w, const token_rows<typename L::value_type>& rows,
                     const plan_output& plan, const typename L::accumulate_type* weights, index_t tokens,
                     const options<L>& o, typename L::value_type* pre, typename L::value_type* shared_pre,
                     const forward_memory<L>& memory, typename L::value_type* z, index_t z_stride, bool z_ends,
                     const Stage& stage = {}) {
    using T = typename L::value_type;
    constexpr bool on_input = L::c.router.acts_on == weight_at::input;
    constexpr int H = L::hidden, D = L::width;
    grouped_product<T> p;
    p.in = rows.in;
    p.in_stride = rows.in_stride;
    p.limit = static_cast<typename L::accumulate_type>(o.limit);
    p.pre = pre;
    if constexpr (L::c.latent > 0) {
        run_dense<T, D, H, L::c.router.input_times_k, false>(ctx, p.in, p.in_stride, w.latent_down.data(),
                                                             memory.latent_x, row_pitch(D), tokens,
                                                             "forward: latent input");
        p.in = memory.latent_x;
        p.in_stride = row_pitch(D);
    }
    p.tiles = plan.tiles;
    p.tile_count = plan.tile_count;
    p.pairs = plan.rows;
    p.slots = L::slots;
    if constexpr (on_input) p.factor = weights;
    expert_matrices<T> shared{};
    if constexpr (WithShared) {
        shared = shared_matrices(w);
        p.rows = static_cast<int>(tokens);
        p.shared.in = rows.given;
        p.shared.in_stride = rows.given_stride;
        p.shared.limit = static_cast<typename L::accumulate_type>(o.shared_limit);
        p.shared.pre = shared_pre;
        p.shared.row = static_cast<int>(tokens * L::slots);
    }
    stage.template run<routed_kind<L>, is_packed<W>, on_input, WithShared>(
        ctx, routed_matrices(w), p, tokens * L::slots, L::experts, plan.tile_rows,
        stage_output<T>{memory.activated, z, z_stride, z_ends, memory.scaled, plan.offsets + L::experts}, shared);
}

/// The products of the shared expert on their own.
template <class Stage = default_stage, class W, layer_type L = typename W::layer_type>
void shared_products(context<cuda>& ctx, const W& w, const token_rows<typename L::value_type>& rows, index_t tokens,
                     const options<L>& o, typename L::value_type* pre, const forward_memory<L>& memory,
                     const Stage& stage = {}) {
    using T = typename L::value_type;
    grouped_product<T> p;
    p.in = rows.given;
    p.in_stride = rows.given_stride;
    p.rows = static_cast<int>(tokens);
    p.limit = static_cast<typename L::accumulate_type>(o.shared_limit);
    p.pre = pre;
    stage.template run<shared_kind<L>, is_packed<W>, false, false>(
        ctx, shared_matrices(w), p, tokens, 1, tile_rows_for<T>(ctx, tokens, 1),
        stage_output<T>{memory.shared_activated, memory.shared_returned, row_pitch(L::hidden), false});
}

/// What follows the experts: the weighted sums with the shared expert's returns, and from a latent width back to the
/// hidden one. `gates` are the shared expert's, or null where nothing computed them before; `c` says where y is.
template <class W, layer_type L = typename W::layer_type>
void combine_rows(context<cuda>& ctx, const W& w, const token_rows<typename L::value_type>& rows,
                  const routing_view<L, cuda>& routing, const std::int32_t* place, const typename L::value_type* z,
                  index_t z_stride, const typename L::accumulate_type* gates, tape<L, cuda>* saved, const options<L>& o,
                  combine_arguments<typename L::value_type> c, const forward_memory<L>& memory) {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    constexpr bool latent = L::c.latent > 0;
    constexpr int H = L::hidden, D = L::width;
    const index_t tokens = c.tokens;
    c.x = rows.x;
    c.x_stride = rows.x_stride;
    c.gate_x = rows.given;
    c.gate_x_stride = rows.given_stride;
    if constexpr (L::shared_ffn > 0) {
        c.shared = memory.shared_returned;
        c.shared_stride = row_pitch(H);
        if constexpr (L::c.shared.gate) {
            c.gates = gates;
            c.gate = w.shared_gate.data();
        }
    }
    if constexpr (L::c.free.constant > 0) {
        c.constant_gate = w.constant_gate.data();
        c.constant_value = w.constant_value.data();
    }
    combine_arguments<T, std::conditional_t<latent, A, T>> r;
    r.z = z;
    r.z_stride = z_stride;
    r.tokens = c.tokens;
    r.scale = static_cast<A>(o.scale);
    if constexpr (L::c.router.acts_on != weight_at::input) r.weights = routing.weights.data();
    r.place = place;
    r.ids = routing.ids.data();
    if constexpr (latent) {
        A* sums = saved ? saved->latent_sums().data() : memory.latent_sums;
        r.y = sums;
        r.y_stride = D;
        run_combine<D, L::slots>(ctx, combine_for<L, true>{}, r);
        const bool adds = L::shared_ffn > 0 || c.accumulate;
        latent_outputs(ctx, w, sums, memory.latent_normal, tokens, adds ? memory.widened : c.y,
                       adds ? row_pitch(H) : c.y_stride, !adds);
        if (!adds) return;
        c.z = memory.widened;
        c.z_stride = row_pitch(H);
        run_combine<H, 1>(ctx, combine_for<L, false>{}, c);
    } else {
        c.z = r.z;
        c.z_stride = r.z_stride;
        c.scale = r.scale;
        c.weights = r.weights;
        c.place = r.place;
        c.ids = r.ids;
        run_combine<H, L::slots>(ctx, combine_for<L, true>{}, c);
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
