// Forward of the layer on CUDA: the launches of one call, in one stream, without a word to the host.
//
//     route_tokens ──> (scatter_pairs) ──> (capacity) ──> up projections, gathered ──> down projections ──> combine ──>
//     y one expert:      up projection ──> down projection ──> y
//
// Grids depend on the number of tokens alone, never on the routing, so a call can be captured in a graph. Nothing is
// allocated once the workspace is there.
#pragma once

#include <gatefold/core/workspace.hpp>
#include <gatefold/cuda/combine.cuh>
#include <gatefold/cuda/experts.cuh>
#include <gatefold/cuda/latent.cuh>
#include <gatefold/cuda/limit.cuh>
#include <gatefold/cuda/pointer.cuh>
#include <gatefold/cuda/route.cuh>
#include <gatefold/cuda/tensor.cuh>
#include <gatefold/moe/tape.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// The workspace of one forward call.
template <layer_type L>
struct forward_memory {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    static constexpr index_t routed(index_t tokens) { return L::is_dense ? 0 : tokens; }
    static constexpr index_t groups(index_t tokens) {
        return ceil_div(tokens, index_t{few_tokens::tokens}) + ceil_div(tokens * L::slots, index_t{counted_pairs});
    }
    static constexpr int least_tile = 8;

    std::int32_t *ids, *offsets, *rows, *place, *counts, *tile_count;
    A *weights, *logits;
    tile* tiles;
    T *scaled, *activated, *returned, *shared_activated, *shared_returned;
    T *given, *multiplied, *latent_x, *latent_normal, *widened;
    A* latent_sums;
    route_buffers<L> route;
    limit_buffers<L> limit;
    static constexpr bool latent = L::c.latent > 0;
    static constexpr bool scales = sizeof(T) == 2 && L::c.router.acts_on == weight_at::input;

    constexpr forward_memory(carver& memory, index_t tokens)
        : ids(memory.take<std::int32_t>(routed(tokens) * L::slots)),
          offsets(memory.take<std::int32_t>(L::choices + 1)),
          rows(memory.take<std::int32_t>(routed(tokens) * L::slots)),
          place(memory.take<std::int32_t>(routed(tokens) * L::slots)),
          counts(memory.take<std::int32_t>(routed(groups(tokens)) * L::choices)),
          tile_count(memory.take<std::int32_t>(1)),
          weights(memory.take<A>(routed(tokens) * L::slots)),
          logits(memory.take<A>(routed(tokens) * L::choices)),
          tiles(memory.take<tile>(routed(1) * most_tiles(tokens * L::slots, L::choices, least_tile))),
          scaled(memory.take<T>(scales ? tokens * L::slots * row_pitch(L::width) : 0)),
          activated(memory.take<T>(tokens * L::slots * row_pitch(L::ffn))),
          returned(memory.take<T>(tokens * L::slots * row_pitch(L::width))),
          shared_activated(memory.take<T>(L::shared_ffn > 0 ? tokens * row_pitch(L::shared_ffn) : 0)),
          shared_returned(memory.take<T>(L::shared_ffn > 0 ? tokens * row_pitch(L::hidden) : 0)),
          given(memory.take<T>(shares_jitter(L::c) ? tokens * row_pitch(L::hidden) : 0)),
          multiplied(memory.take<T>(L::c.router.input_times_k ? tokens * row_pitch(L::hidden) : 0)),
          latent_x(memory.take<T>(latent ? tokens * row_pitch(L::width) : 0)),
          latent_normal(memory.take<T>(latent ? tokens * row_pitch(L::width) : 0)),
          widened(memory.take<T>(latent ? tokens * row_pitch(L::hidden) : 0)),
          latent_sums(memory.take<A>(latent ? tokens * L::width : 0)),
          route(memory, routed(tokens)),
          limit(memory, routed(tokens)) {}
};

template <layer_type L>
constexpr std::size_t forward_bytes(index_t tokens) {
    carver count(nullptr);
    const forward_memory<L> memory(count, tokens);
    return count.used();
}

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
    if (Hidden % wide == 0 && a.y_stride % wide == 0 && a.x_stride % wide == 0)
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

/// A dense layer: both projections, and an addition where y is added to.
template <class W, layer_type L = typename W::layer_type>
void dense_forward(context<cuda>& ctx, const W& w, grouped_product<typename L::value_type> p,
                   combine_arguments<typename L::value_type> c, const forward_memory<L>& memory, index_t tokens) {
    using T = typename L::value_type;
    p.rows = static_cast<int>(tokens);
    const int tile_rows = tile_rows_for<T>(ctx, tokens, 1);
    stage_output<T> to{memory.activated, c.y, c.y_stride, true};
    if (c.accumulate) to = {memory.activated, memory.returned, row_pitch(L::width), false};
    run_experts<routed_kind<L>, is_packed<W>, false>(ctx, routed_matrices(w), p, tokens, 1, tile_rows, to);
    if (!c.accumulate) return;
    c.z = memory.returned;
    c.z_stride = row_pitch(L::width);
    run_combine<L::hidden, 1>(ctx, combine_for<L, false>{}, c);
}

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

/// The routing and the plan of its kept pairs, on the tape or in the workspace.
template <class W, layer_type L = typename W::layer_type>
plan_output route_and_plan(context<cuda>& ctx, const W& w, const batch<L, cuda>& in, const options<L>& o,
                           const routing_view<L, cuda>& routing, tape<L, cuda>* saved, const forward_memory<L>& memory,
                           int tile_rows) {
    plan_output plan{memory.offsets, memory.rows, memory.place, memory.tiles, memory.tile_count, tile_rows};
    if (saved) {
        const plan_view<cuda> kept = saved->plan();
        plan.offsets = kept.offsets.data();
        plan.rows = kept.rows.data();
        plan.place = kept.place.data();
    }
    typename L::accumulate_type* deviations = nullptr;
    if constexpr (L::c.router.transform == logit_transform::noisy_top_k)
        if (saved) deviations = saved->deviations().data();
    if constexpr (drops(L::c)) {
        const plan_output all{memory.limit.offsets, memory.limit.rows, plan.place};
        route(ctx, route_call<W>{w, in, o, routing, memory.route, &all, memory.counts, deviations});
        limit_pairs(ctx, policy_of<L>{}, in, o, routing, memory.limit,
                    limit_buffers<L>::settles ? memory.limit.kept : nullptr, &plan);
    } else {
        route(ctx, route_call<W>{w, in, o, routing, memory.route, &plan, memory.counts, deviations});
    }
    return plan;
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

/// The products of the routed experts: z[r] for every row of the plan.
template <class W, layer_type L = typename W::layer_type>
void routed_products(context<cuda>& ctx, const W& w, const token_rows<typename L::value_type>& rows,
                     const plan_output& plan, const typename L::accumulate_type* weights, index_t tokens,
                     const options<L>& o, typename L::value_type* pre, const forward_memory<L>& memory,
                     typename L::value_type* z, index_t z_stride, bool z_ends) {
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
    run_experts<routed_kind<L>, is_packed<W>, on_input>(
        ctx, routed_matrices(w), p, tokens * L::slots, L::experts, plan.tile_rows,
        {memory.activated, z, z_stride, z_ends, memory.scaled, plan.offsets + L::experts});
}

/// What follows the experts: the shared expert, the weighted sums, and from a latent width back to the hidden one. `c`
/// says where y is.
template <class W, layer_type L = typename W::layer_type>
void combine_rows(context<cuda>& ctx, const W& w, const token_rows<typename L::value_type>& rows,
                  const routing_view<L, cuda>& routing, const std::int32_t* place, const typename L::value_type* z,
                  index_t z_stride, tape<L, cuda>* saved, const options<L>& o,
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
        grouped_product<T> s;
        s.in = rows.given;
        s.in_stride = rows.given_stride;
        s.rows = static_cast<int>(tokens);
        s.limit = static_cast<A>(o.shared_limit);
        if (saved) s.pre = saved->shared_gate_up().data();
        run_experts<shared_kind<L>, is_packed<W>, false>(
            ctx, shared_matrices(w), s, tokens, 1, tile_rows_for<T>(ctx, tokens, 1),
            {memory.shared_activated, memory.shared_returned, row_pitch(H), false});
        c.shared = memory.shared_returned;
        c.shared_stride = row_pitch(H);
        if constexpr (L::c.shared.gate) c.gate = w.shared_gate.data();
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

template <class W, layer_type L = typename W::layer_type>
void routed_forward(context<cuda>& ctx, const W& w, const batch<L, cuda>& in, tape<L, cuda>* saved, const options<L>& o,
                    const combine_arguments<typename L::value_type>& c, const forward_memory<L>& memory) {
    using T = typename L::value_type;
    const index_t tokens = in.x.extent(0);
    const routing_view<L, cuda> routing = saved ? saved->routing()
                                                : routing_view<L, cuda>{{memory.ids, {tokens, L::slots}},
                                                                        {memory.weights, {tokens, L::slots}},
                                                                        {memory.logits, {tokens, L::choices}}};
    const plan_output plan =
        route_and_plan(ctx, w, in, o, routing, saved, memory, tile_rows_for<T>(ctx, tokens * L::slots, L::experts));
    const token_rows<T> rows = read_rows(ctx, in, o, memory);
    routed_products(ctx, w, rows, plan, routing.weights.data(), tokens, o, saved ? saved->gate_up().data() : nullptr,
                    memory, memory.returned, row_pitch(L::width), false);
    combine_rows(ctx, w, rows, routing, plan.place, memory.returned, row_pitch(L::width), saved, o, c, memory);
}

/// Rows of a 16-bit layer begin at whole vectors.
template <class T, int Width, class V>
void check_row_starts(const char* function, const char* argument, const V& v) {
    if constexpr (sizeof(T) == 2 && Width % 8 == 0)
        require(v.row_stride() % 8 == 0 || v.extent(0) <= 1, function, argument,
                "rows that begin at multiples of 16 bytes", v.row_stride());
}

template <class W, layer_type L = typename W::layer_type>
void layer_forward(context<cuda>& ctx, const W& w, const batch<L, cuda>& in, const output_of<W>& y,
                   tape<L, cuda>* saved, const options<L>& o) {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    static_assert(L::c.router.learns_from != estimator::straight_through,
                  "gatefold: weights of 1 in forward and scores in backward are not there on CUDA; leave "
                  ".router.learns_from out");
    const device_scope scope(ctx.device());
    check_device_pointer("forward", "x", in.x.data(), ctx.device());
    check_device_pointer("forward", "y", y.data(), ctx.device());
    const index_t tokens = in.x.extent(0);
    carver arrays(ctx.workspace(forward_bytes<L>(tokens)));
    const forward_memory<L> memory(arrays, tokens);
    check_row_starts<T, L::hidden>("forward", "x", in.x);
    check_row_starts<T, L::hidden>("forward", "y", y);
    combine_arguments<T> c;
    c.y = y.data();
    c.y_stride = y.row_stride();
    c.tokens = static_cast<int>(tokens);
    c.accumulate = o.accumulate;
    if constexpr (L::is_dense) {
        grouped_product<T> p;
        p.in = in.x.data();
        p.in_stride = in.x.row_stride();
        p.limit = static_cast<A>(o.limit);
        if (saved) p.pre = saved->gate_up().data();
        dense_forward(ctx, w, p, c, memory, tokens);
    } else {
        routed_forward(ctx, w, in, saved, o, c, memory);
        const auto zero = [&](const auto& v) {
            check(cudaMemsetAsync(v.data(), 0, static_cast<std::size_t>(v.size()) * sizeof(A), ctx.stream()),
                  "forward: tape");
        };
        if (saved) {
            zero(saved->logit_gradients());
            if constexpr (L::c.router.transform == logit_transform::noisy_top_k) zero(saved->deviation_gradients());
        }
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
