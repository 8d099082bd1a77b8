// Backward of the layer on the CPU: the plan walked in reverse.
//
//     dy ──> routed experts ──> dx rows ── ascending experts ──> dx      d weights ──> router ──> dx
//       └──> shared expert  ──────────────────────────────────> dx
//
// dx is summed in one order: routed experts of the token upwards, shared expert and its gate, router. Dropped pairs are
// in no expert's rows, so they contribute exactly nothing. Every gradient has the same bits for any number of threads.
#pragma once

#include <cstring>

#include <gatefold/cpu/backward/all_experts.hpp>
#include <gatefold/cpu/backward/ffn.hpp>
#include <gatefold/cpu/forward.hpp>
#include <gatefold/moe/tape.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// The workspace of one backward call.
template <layer_type L>
struct backward_memory {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    static constexpr bool scales_output = !L::is_dense && L::c.router.scaled == scale_at::output;
    ffn_backward_memory<T, L::c.act> experts;
    ffn_backward_memory<T, L::c.shared.act> shared;
    A *d_weights, *factors, *dx, *shared_gate, *d_shared_gate;
    A *latent_normal, *d_latent_normal, *d_latent_sums, *d_latent_x;
    T *latent_x, *disturbed_x, *multiplied_x;
    std::byte *products, *router;
    all_experts_memory<L> all_experts;

    constexpr backward_memory(carver& memory, index_t tokens, int threads)
        : experts(memory, L::is_dense ? tokens : max_rows(L::c, tokens), L::width, L::ffn),
          shared(memory, L::shared_ffn > 0 ? tokens : 0, L::hidden, L::shared_ffn),
          d_weights(memory.take<A>(L::is_dense ? 0 : tokens * L::slots)),
          factors(memory.take<A>(scales_output ? tokens * L::slots : 0)),
          dx(memory.take<A>(tokens * L::hidden)),
          shared_gate(memory.take<A>(L::c.shared.gate ? tokens : 0)),
          d_shared_gate(memory.take<A>(L::c.shared.gate ? tokens : 0)),
          latent_normal(memory.take<A>(tokens * L::c.latent)),
          d_latent_normal(memory.take<A>(tokens * L::c.latent)),
          d_latent_sums(memory.take<A>(tokens * L::c.latent)),
          d_latent_x(memory.take<A>(tokens * L::c.latent)),
          latent_x(memory.take<T>(tokens * L::c.latent)),
          disturbed_x(memory.take<T>(shares_jitter(L::c) ? tokens * L::hidden : 0)),
          multiplied_x(memory.take<T>(L::c.router.input_times_k ? tokens * L::hidden : 0)),
          products(memory.take<std::byte>(static_cast<index_t>(product_scratch_bytes(threads)))),
          router(memory.take<std::byte>(
              L::is_dense ? 0 : static_cast<index_t>(route_backward_scratch_bytes<L>(tokens, threads)))),
          all_experts(memory, tokens, threads) {}
};

template <layer_type L>
constexpr std::size_t backward_bytes(index_t tokens, int threads) {
    carver count(nullptr);
    backward_memory<L> memory(count, tokens, threads);
    return count.used();
}

/// Fills in the parameters and gradients of the routed experts, or of the dense FFN.
template <class D, class W, layer_type L = typename W::layer_type>
ffn_backward_call<typename L::value_type, D> experts_backward_call(const W& w, const gradients<L>& g) {
    ffn_backward_call<typename L::value_type, D> call{};
    call.slots = 1;
    call.width = L::width;
    call.ffn = L::ffn;
    call.gate_up = gate_up_of(w);
    call.down = w.down.data();
    call.d_gate_up = gate_up_of(g);
    call.d_down = g.down.data();
    if constexpr (L::c.bias) {
        call.down_bias = w.down_bias.data();
        call.d_gate_up_bias = g.gate_up_bias.data();
        call.d_down_bias = g.down_bias.data();
    }
    return call;
}

/// Backward through the shared expert and its gate; dx gains their part.
template <class W, layer_type L = typename W::layer_type>
void shared_backward(context<cpu>& ctx, const W& w, const batch<L>& in, tape<L>& saved,
                     const view<const typename L::value_type, dyn, L::hidden>& dy, gradients<L>& g, const options<L>& o,
                     const backward_memory<L>& memory) {
    using A = typename L::accumulate_type;
    using T = typename L::value_type;
    const index_t tokens = in.x.extent(0);
    const int parts = static_cast<int>(tokens < ctx.threads() ? tokens : ctx.threads());
    ffn_backward_call<T> call{};
    call.groups = {1, nullptr, tokens};
    call.slots = 1;
    call.x = in.x.data();
    call.x_stride = in.x.row_stride();
    call.dy = dy.data();
    call.dy_stride = dy.row_stride();
    call.width = L::hidden;
    call.ffn = L::shared_ffn;
    call.gate_up = w.shared_gate_up.data();
    call.down = w.shared_down.data();
    call.pre_activations = saved.shared_gate_up().data();
    call.limit = static_cast<A>(o.shared_limit);
    call.d_gate_up = g.shared_gate_up.data();
    call.d_down = g.shared_down.data();
    call.accumulate = o.accumulate;
    if constexpr (L::c.shared.bias) {
        call.down_bias = w.shared_down_bias.data();
        call.d_gate_up_bias = g.shared_gate_up_bias.data();
        call.d_down_bias = g.shared_down_bias.data();
    }
    if constexpr (L::c.shared.gate) {
        shared_gate_values(ctx, w, in, memory.shared_gate);
        call.output_weights = memory.shared_gate;
        call.d_weights = memory.d_shared_gate;
    }
    ffn_backward<L::c.shared.act>(ctx, call, memory.shared, memory.products);
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(tokens, part, parts);
        for (index_t t = mine.begin; t < mine.end; ++t) {
            add_scaled(memory.dx + t * L::hidden, A{1}, memory.shared.d_x + t * L::hidden, L::hidden);
            if constexpr (L::c.shared.gate) {
                const A s = memory.shared_gate[t];
                memory.d_shared_gate[t] = gatefold::mul(memory.d_shared_gate[t], gatefold::mul(s, A{1} - s));
                add_scaled(memory.dx + t * L::hidden, memory.d_shared_gate[t], w.shared_gate.data(), L::hidden);
            }
        }
    });
    if constexpr (L::c.shared.gate)
        column_sums(ctx, {1, nullptr, tokens},
                    rows_of<T>{in.x.data(), in.x.row_stride(), nullptr, 1, memory.d_shared_gate}, L::hidden,
                    g.shared_gate.data(), o.accumulate);
}

/// Backward through the routed experts: their gradients, d_weights of every pair, and dx; `given` is what experts_batch
/// made of the batch.
template <class W, layer_type L = typename W::layer_type>
void routed_backward(context<cpu>& ctx, const W& w, const batch<L>& given, tape<L>& saved,
                     const view<const typename L::value_type, dyn, L::hidden>& dy, gradients<L>& g, const options<L>& o,
                     const backward_memory<L>& memory) {
    using A = typename L::accumulate_type;
    constexpr bool on_input = L::c.router.acts_on == weight_at::input;
    const index_t tokens = given.x.extent(0);
    const batch<L> in = routed_batch(ctx, given, memory);
    const plan_view<cpu> plan = saved.plan();
    const routing_view<L> routing = saved.routing();
    using dy_type = std::conditional_t<(L::c.latent > 0), A, typename L::value_type>;
    auto call = experts_backward_call<dy_type>(w, g);
    call.groups = {L::experts, plan.offsets.data(), 0};
    call.pairs = plan.rows.data();
    call.slots = L::slots;
    call.output_weights = on_input ? nullptr : routing.weights.data();
    call.input_weights = on_input ? routing.weights.data() : nullptr;
    if constexpr (backward_memory<L>::scales_output) {
        // The scale of the routed sum multiplies every expert's output.
        for (index_t p = 0; p < tokens * L::slots; ++p)
            memory.factors[p] =
                on_input ? static_cast<A>(o.scale) : gatefold::mul(routing.weights.data()[p], static_cast<A>(o.scale));
        call.output_weights = memory.factors;
    }
    if constexpr (L::c.latent > 0) {
        latent_outputs_backward(ctx, memory.products, w, saved, dy, g, o.accumulate, memory.latent_normal,
                                memory.d_latent_normal, memory.d_latent_sums);
        latent_inputs(ctx, memory.products, w, in, memory.latent_x);
        call.x = memory.latent_x;
        call.dy = memory.d_latent_sums;
        call.x_stride = call.dy_stride = L::width;
    } else {
        call.x = in.x.data();
        call.x_stride = in.x.row_stride();
        call.dy = dy.data();
        call.dy_stride = dy.row_stride();
    }
    call.pre_activations = saved.gate_up().data();
    call.limit = static_cast<A>(o.limit);
    call.accumulate = o.accumulate;
    call.d_weights = memory.d_weights;
    // Pairs without a row, empty or dropped, keep a gradient of exactly zero.
    for (index_t p = 0; p < tokens * L::slots; ++p) memory.d_weights[p] = 0;
    ffn_backward<L::c.act>(ctx, call, memory.experts, memory.products,
                           dropout_of(o, in.first_token, plan.rows.data(), L::slots));

    const int parts = static_cast<int>(tokens < ctx.threads() ? tokens : ctx.threads());
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(tokens, part, parts);
        for (index_t t = mine.begin; t < mine.end; ++t) {
            A* to = (L::c.latent > 0 ? memory.d_latent_x : memory.dx) + t * L::width;
            for (int h = 0; h < L::width; ++h) to[h] = 0;
            const std::int32_t* place = plan.place.data() + t * L::slots;
            const ordered_slots<L::slots> order(place);
            for (int i = 0; i < order.count; ++i) {
                const int s = order.slot[i];
                if (routing.ids(t, s) >= L::experts) continue;
                const A factor = on_input ? routing.weights(t, s) : A{1};
                add_scaled(to, factor, memory.experts.d_x + index_t{place[s]} * L::width, L::width);
            }
        }
    });
    if constexpr (L::choices > L::experts) {
        routing_view<L> scaled = routing;
        if constexpr (backward_memory<L>::scales_output) scaled.weights = {memory.factors, {tokens, L::slots}};
        free_experts_backward(ctx, w, in, plan, scaled, dy, memory.d_weights, memory.dx, g, o, memory.products);
    }
    if constexpr (backward_memory<L>::scales_output && !on_input) {
        for (index_t p = 0; p < tokens * L::slots; ++p)
            memory.d_weights[p] = gatefold::mul(memory.d_weights[p], static_cast<A>(o.scale));
    }
    if constexpr (L::c.latent > 0)
        latent_inputs_backward(ctx, memory.products, w, in, memory.d_latent_x, g, o.accumulate, memory.dx);
    if constexpr (L::c.router.input_times_k)
        map<A>(
            tokens * L::hidden, [](vec<A> d) { return mul(d, broadcast<A>(static_cast<A>(L::top_k))); }, memory.dx,
            memory.dx);
    if constexpr (L::c.router.acts_on == weight_at::blend)
        blend_backward(ctx, given, plan, routing, dy, memory.d_weights, memory.dx);
}

/// Rounds sums to the rows of a view.
template <class A, class T, int Width>
void store_rows(context<cpu>& ctx, const A* from, const view<T, dyn, Width>& to) {
    const index_t tokens = to.extent(0);
    const int parts = static_cast<int>(tokens < ctx.threads() ? tokens : ctx.threads());
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(tokens, part, parts);
        for (index_t t = mine.begin; t < mine.end; ++t)
            for (index_t h = 0; h < Width; h += lanes<A>)
                store_first(to.row(t) + h, load_first<A>(from + t * Width + h, Width - h), Width - h);
    });
}

template <class W, layer_type L = typename W::layer_type>
void layer_backward(context<cpu>& ctx, const W& w, const batch<L>& in, tape<L>& saved,
                    const view<const typename L::value_type, dyn, L::hidden>& dy,
                    const view<typename L::value_type, dyn, L::hidden>& dx, gradients<L>& g, const options<L>& o) {
    using A = typename L::accumulate_type;
    const index_t tokens = in.x.extent(0);
    if (tokens == 0) {
        if (!o.accumulate) for_each_parameter([](const char*, auto& slot) { slot.set_zero(); }, g);
        return;
    }
    carver arrays(ctx.workspace(backward_bytes<L>(tokens, ctx.threads())));
    const backward_memory<L> memory(arrays, tokens, ctx.threads());

    const A* rows = memory.dx;
    if constexpr (L::is_dense) {
        auto call = experts_backward_call<typename L::value_type>(w, g);
        call.groups = {1, nullptr, tokens};
        call.x = in.x.data();
        call.x_stride = in.x.row_stride();
        call.dy = dy.data();
        call.dy_stride = dy.row_stride();
        call.pre_activations = saved.gate_up().data();
        call.limit = static_cast<A>(o.limit);
        call.accumulate = o.accumulate;
        ffn_backward<L::c.act>(ctx, call, memory.experts, memory.products, dropout_of(o, in.first_token, nullptr, 1));
        rows = memory.experts.d_x;
    } else {
        const batch<L> given = experts_batch(ctx, in, o, memory);
        routed_backward(ctx, w, given, saved, dy, g, o, memory);
        if constexpr (L::c.shared.ffn > 0) shared_backward(ctx, w, given, saved, dy, g, o, memory);
        if constexpr (shares_jitter(L::c)) {
            const counter_rng draw = draws_of(o);
            for_each_token(ctx, tokens, [&](index_t t) {
                A* to = memory.dx + t * L::hidden;
                disturb_row<L, false>(to, o, draw, in.first_token + t, to);
            });
        }
        const view<A, dyn, L::slots> d_weights{memory.d_weights, {tokens, L::slots}};
        route_backward(ctx, w, in, o, saved.routing(), d_weights, saved.logit_gradients());
        if constexpr (L::c.router.learns_from == estimator::all_experts)
            all_experts_backward(ctx, w, routed_batch(ctx, given, memory), saved.routing(), dy, o,
                                 saved.logit_gradients(), memory.all_experts);
        if constexpr (L::c.router.learns_from == estimator::default_vectors)
            default_vectors_backward(ctx, w, saved.routing(), dy, o, saved.logit_gradients(), memory.all_experts);
        if constexpr (L::c.router.expert_scale)
            expert_scale_backward(ctx, w, in, o, saved.routing(), d_weights, g, o.accumulate);
        if (in.router_x.data()) {
            store_rows(ctx, memory.dx, dx);
            for (index_t i = 0; i < tokens * L::hidden; ++i) memory.dx[i] = 0;
        }
        route_parameters_backward(
            ctx, w, in, o, saved.logit_gradients(), view<A, dyn, L::hidden>{memory.dx, {tokens, L::hidden}}, g,
            o.accumulate, memory.router, saved.deviations().size() > 0 ? saved.deviation_gradients().data() : nullptr);
    }

    if (L::is_dense || !in.router_x.data())
        store_rows(ctx, rows, dx);
    else if (in.router_x_gradients.data())
        store_rows(ctx, rows, in.router_x_gradients);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
