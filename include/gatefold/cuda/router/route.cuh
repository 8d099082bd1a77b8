// The launches of the router: what it projects, logits and routing, the plan beyond 1024 pairs.
//
//     x ── (noise, norm) ── (first layer) ──> route_tokens ──> logits, ids, weights, plan
#pragma once

#include <gatefold/cuda/plan_call.cuh>
#include <gatefold/cuda/router/assign_call.cuh>
#include <gatefold/cuda/router/input.cuh>
#include <gatefold/cuda/router/route_call.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// x · w^T for all tokens.
template <int Depth, int Outputs, bool Tanh, class X, class R, class A>
void project(context<cuda>& ctx, const X* x, index_t x_stride, const R* w, A* out, index_t tokens) {
    const auto launch = [&]<class Shape>(Shape) {
        const dim3 grid(static_cast<unsigned>(ceil_div(tokens, index_t{Shape::tokens})),
                        unsigned{ceil_div(Outputs, int{Shape::experts})});
        project_rows<X, R, Depth, Outputs, Tanh, Shape>
            <<<grid, plan_threads, 0, ctx.stream()>>>(x, x_stride, w, out, static_cast<int>(tokens));
        check_kernel("route: projection");
    };
    for_tokens(tokens, launch);
}

/// Launches the router over rows that are ready. The policy is deduced, since nvcc spells an alias in the kernel's
/// stub, layer and all.
template <class P, int Slots>
void route_rows(context<cuda>& ctx, route_arguments<P> a, index_t tokens, int experts, const plan_output* plan,
                std::int32_t* counts) {
    constexpr int N = P::choices;
    const index_t pairs = tokens * Slots;
    const bool small = pairs <= pairs_at_once;
    a.control = ctx.control();
    if (plan) {
        a.plan = *plan;
        a.plans = small;
        a.counts = small ? nullptr : counts;
    }
    const auto launch = [&]<class Shape>(Shape) {
        constexpr int most = device_control::groups * Shape::tokens;
        for (index_t first = 0; first < tokens; first += most) {
            a.first = static_cast<int>(first);
            a.tokens = static_cast<int>(tokens - first < most ? tokens : first + most);
            const dim3 grid(static_cast<unsigned>(ceil_div(a.tokens - a.first, int{Shape::tokens})),
                            unsigned{ceil_div(N, int{Shape::experts})} + (a.gate.out ? 1u : 0u));
            route_tokens<P, Shape><<<grid, plan_threads, 0, ctx.stream()>>>(a);
            check_kernel("route");
        }
        if (plan && !small) {
            const int groups = static_cast<int>(ceil_div(tokens, index_t{Shape::tokens}));
            scatter<N>(ctx, {a.ids, nullptr}, pairs, Shape::tokens * Slots, groups, experts, counts, *plan);
            check_kernel("make_plan");
        }
    };
    for_tokens(tokens, launch);
}

/// Routes rows that are ready: of P::input_type, P::depth elements each.
template <class P, class W, layer_type L = typename W::layer_type>
void route_ready(context<cuda>& ctx, P, const route_call<W>& call, const typename P::input_type* rows, index_t stride) {
    constexpr router_config r = L::c.router;
    const W& w = call.w;
    const auto& [ids, weights, logits] = call.out;
    route_arguments<P> a;
    a.x = rows;
    a.x_stride = stride;
    if constexpr (r.logits == projection::linear) a.router = w.router.data();
    if constexpr (r.logits == projection::two_layer) a.router = w.router_head.data();
    if constexpr (r.logits == projection::cosine) {
        a.router = call.memory.directions;
        a.temperature = w.router_temperature.data();
    }
    if constexpr (r.bias) a.router_bias = w.router_bias.data();
    if constexpr (r.expert_scale) a.expert_scale = w.expert_scale.data();
    if constexpr (r.selection_bias != key_bias::none) a.selection_bias = w.selection_bias.data();
    if constexpr (r.transform == logit_transform::residual) {
        a.transform.previous = call.in.previous_logits.data();
        a.transform.previous_stride = call.in.previous_logits.row_stride();
        a.transform.residual = w.router_residual.data();
    }
    a.transform.deviations = call.memory.deviations;
    a.transform.kept_deviations = call.deviations;
    a.given = call.in.chosen.data();
    a.given_stride = call.in.chosen.row_stride();
    a.ids = ids.data();
    a.weights = weights.data();
    a.logits = logits.data();
    a.ids_stride = ids.row_stride();
    a.weights_stride = weights.row_stride();
    a.logits_stride = logits.row_stride();
    a.gate = call.gate;
    const options<L>& o = call.o;
    a.numbers = {o.scale, o.epsilon, o.noise, o.threshold, r.power, o.training, draws_of(o), call.in.first_token};
    if constexpr (route_buffers<L>::assigns) {
        constexpr bool choice = route_buffers<L>::choice;
        if ((choice || o.training) && (!a.given || r.from == score::softmax_tokens)) {
            a.scores = call.memory.matrix;
            route_rows<P, L::slots>(ctx, a, call.in.x.extent(0), L::experts, nullptr, nullptr);
            return assign_batch(ctx, P{}, call, a);
        }
    }
    route_rows<P, L::slots>(ctx, a, call.in.x.extent(0), L::experts, call.plan, call.counts);
}

/// From what the router reads, tokens or rows of the accumulation type, through the first layer of deep projections.
template <class X, class W, layer_type L = typename W::layer_type>
void route_from(context<cuda>& ctx, const route_call<W>& call, const X* rows, index_t stride) {
    using A = typename L::accumulate_type;
    using source = logits_source<L>;
    const W& w = call.w;
    const index_t tokens = call.in.x.extent(0);
    if constexpr (route_buffers<L>::noisy) {
        if (call.o.training)
            project<L::hidden, L::choices, false>(ctx, rows, stride, w.router_noise.data(), call.memory.deviations,
                                                  tokens);
    }
    if constexpr (source::deep) {
        constexpr int P = source::depth;
        A* features = call.memory.features;
        project<L::hidden, P, !route_buffers<L>::cosine>(ctx, rows, stride, w.router_projection.data(), features,
                                                         tokens);
        if constexpr (route_buffers<L>::cosine) {
            normalise_rows<A, typename L::router_type, P, L::choices>
                <<<static_cast<unsigned>(ceil_div(tokens + L::choices, index_t{8})), 256, 0, ctx.stream()>>>(
                    features, static_cast<int>(tokens), w.router_head.data(), call.memory.directions);
            check_kernel("route: directions");
        }
        route_ready(ctx, policy_of<L, true>{}, call, features, index_t{P});
    } else {
        route_ready(ctx, policy_of<L, std::is_same_v<X, A>>{}, call, rows, stride);
    }
}

/// The same behind noise and norm on the input.
template <bool Disturbs, class W, layer_type L = typename W::layer_type>
void route_moved(context<cuda>& ctx, const route_call<W>& call) {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    using R = typename L::router_type;
    constexpr int H = L::hidden;
    constexpr router_input input = logits_source<L>::normed ? L::c.router.input : router_input::tokens;
    const index_t tokens = call.in.x.extent(0);
    const auto& x = call.in.router_x.data() ? call.in.router_x : call.in.x;
    const R* scale = nullptr;
    if constexpr (input == router_input::rms_norm) scale = call.w.router_scale.data();
    A* u = call.memory.input;
    move_rows<T, A, R, H, input, L::c.router.noise_on, Disturbs>
        <<<static_cast<unsigned>(ceil_div(tokens, index_t{8})), 256, 0, ctx.stream()>>>(
            x.data(), x.row_stride(), scale, u, index_t{H}, static_cast<int>(tokens), call.o.noise, draws_of(call.o),
            call.in.first_token);
    check_kernel("route: input");
    route_from<A>(ctx, call, u, index_t{H});
}

/// Routes the tokens and, given somewhere to put it, makes their plan.
template <class W, layer_type L = typename W::layer_type>
void route(context<cuda>& ctx, const route_call<W>& call) {
    using T = typename L::value_type;
    check_options("route", call.o);
    require(!call.o.training || !assigns_on_the_cpu<L>, "forward", "options.training",
            "false on CUDA for balanced assignment, which is an auction", call.o.training);
    if constexpr (has_jitter(L::c)) {
        if (is_disturbed(call.o)) return route_moved<true>(ctx, call);
    }
    if constexpr (logits_source<L>::normed) {
        route_moved<false>(ctx, call);
    } else {
        const auto& x = call.in.router_x.data() ? call.in.router_x : call.in.x;
        route_from<T>(ctx, call, x.data(), x.row_stride());
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
