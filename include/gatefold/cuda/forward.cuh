// Forward of the layer on CUDA: the launches of one call, in one stream, without a word to the host.
//
//     route_tokens ──> (scatter_pairs) ──> up projections, gathered ──> down projections ──> combine ──> y
//     one expert:      up projection ──> down projection ──> y
//
// Grids depend on the number of tokens alone, never on the routing, so a call can be captured in a graph. Nothing is
// allocated once the workspace is there.
#pragma once

#include <gatefold/core/workspace.hpp>
#include <gatefold/cuda/combine.cuh>
#include <gatefold/cuda/experts.cuh>
#include <gatefold/cuda/plan.cuh>
#include <gatefold/cuda/router.cuh>
#include <gatefold/cuda/tensor.cuh>
#include <gatefold/moe/router.hpp>
#include <gatefold/moe/tape.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// Refuses what this wing has no kernel for, in a sentence.
template <layer_type L>
constexpr bool check_supported() {
    constexpr router_config r = L::c.router;
    static_assert(r.group_by != group_key::share_sum && r.renorm != renormalise::norm,
                  "gatefold: groups by share_sum and division by a norm are not there on CUDA; run on the CPU");
    static_assert(r.acts_on != weight_at::blend && !r.input_times_k,
                  "gatefold: a blend with the token, and tokens times k, are not there on CUDA; leave .router.acts_on and "
                  ".input_times_k out");
    static_assert(r.select != selection::expert_choice, "gatefold: expert choice is not there on CUDA; run on the CPU");
    static_assert(r.input == router_input::tokens,
                  "gatefold: on CUDA a router reads the tokens as they are; set .router.input to router_input::tokens");
    static_assert(r.logits == projection::linear || r.logits == projection::none,
                  "gatefold: on CUDA a router has a linear projection or none; set .router.logits");
    static_assert(r.transform != logit_transform::residual && r.transform != logit_transform::noisy_top_k,
                  "gatefold: on CUDA logits are not transformed by learned matrices; set .router.transform");
    static_assert(L::c.latent == 0, "gatefold: experts on a latent width are not there on CUDA; leave .latent out");
    static_assert(L::c.free.constant == 0,
                  "gatefold: experts that return a learned constant are not there on CUDA; leave .free.constant out");
    static_assert(L::c.capacity.rule == capacity_rule::none,
                  "gatefold: a capacity is not there on CUDA; leave .capacity out");
    return true;
}

/// Draws that the configuration makes in training only, on inputs or logits.
template <layer_type L>
inline constexpr bool trains_on_the_cpu = has_jitter(L::c) || L::c.router.transform == logit_transform::gaussian
                                          || L::c.router.transform == logit_transform::gumbel
                                          || L::c.router.select == selection::sinkhorn
                                          || L::c.router.select == selection::balanced;

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
          shared_returned(memory.take<T>(L::shared_ffn > 0 ? tokens * row_pitch(L::hidden) : 0)) {}
};

template <layer_type L>
constexpr std::size_t forward_bytes(index_t tokens) {
    carver count(nullptr);
    const forward_memory<L> memory(count, tokens);
    return count.used();
}

template <int N>
void scatter(context<cuda>& ctx, const expert_of_pair& id_of, index_t pairs, int group_pairs, int groups, int experts,
             const std::int32_t* counts, const plan_output& out) {
    const int each = ceil_div(groups, most_scatter_blocks), blocks = ceil_div(groups, each);
    scatter_pairs<N><<<static_cast<unsigned>(blocks + 1), plan_threads, 0, ctx.stream()>>>(
        id_of, pairs, group_pairs, groups, each, experts, counts, out);
}

/// The plan of given ids.
template <int N>
void make_plan(context<cuda>& ctx, const expert_of_pair& id_of, index_t pairs, int experts, const plan_output& out,
               std::int32_t* counts) {
    if (pairs <= pairs_at_once) {
        plan_in_one_block<N><<<1, plan_threads, 0, ctx.stream()>>>(id_of, static_cast<int>(pairs), experts, out);
    } else {
        const int groups = static_cast<int>(ceil_div(pairs, index_t{counted_pairs}));
        count_pairs<N><<<static_cast<unsigned>(groups), plan_threads, 0, ctx.stream()>>>(id_of, pairs, counts);
        scatter<N>(ctx, id_of, pairs, counted_pairs, groups, experts, counts, out);
    }
    check_launch("make_plan");
}
/// Routes the tokens and, given somewhere to put it, makes their plan. The policy is deduced, since nvcc spells an
/// alias in the kernel's stub, layer and all.
template <class P, class W, layer_type L = typename W::layer_type>
void route(context<cuda>& ctx, P, const W& w, const batch<L, cuda>& in, const options<L>& o,
           const routing_view<L, cuda>& out, const plan_output* plan, std::int32_t* counts) {
    constexpr int N = L::choices;
    check_options("route", o);
    require(!o.training || !trains_on_the_cpu<L>, "forward", "options.training",
            "false on CUDA for a router that draws noise for inputs or logits, or assigns over the batch", o.training);
    const index_t tokens = in.x.extent(0), pairs = tokens * L::slots;
    const auto& x = in.router_x.data() ? in.router_x : in.x;
    route_arguments<P> a;
    a.x = x.data();
    a.x_stride = x.row_stride();
    if constexpr (L::c.router.logits == projection::linear) a.router = w.router.data();
    if constexpr (L::c.router.bias) a.router_bias = w.router_bias.data();
    if constexpr (L::c.router.expert_scale) a.expert_scale = w.expert_scale.data();
    if constexpr (L::c.router.selection_bias != key_bias::none) a.selection_bias = w.selection_bias.data();
    a.given = in.chosen.data();
    a.given_stride = in.chosen.row_stride();
    a.ids = out.ids.data();
    a.weights = out.weights.data();
    a.logits = out.logits.data();
    a.ids_stride = out.ids.row_stride();
    a.weights_stride = out.weights.row_stride();
    a.logits_stride = out.logits.row_stride();
    a.numbers = {o.scale,       o.epsilon,  o.noise,
                 o.threshold,   o.training, counter_rng{o.seed, o.step, static_cast<int>(o.layer)},
                 in.first_token};
    a.control = ctx.control();
    const bool small = pairs <= pairs_at_once;
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
                            unsigned{ceil_div(N, int{Shape::experts})});
            route_tokens<P, Shape><<<grid, plan_threads, 0, ctx.stream()>>>(a);
            check_launch("route");
        }
        if (plan && !small) {
            const int groups = static_cast<int>(ceil_div(tokens, index_t{Shape::tokens}));
            scatter<N>(ctx, {a.ids, nullptr}, pairs, Shape::tokens * L::slots, groups, L::experts, counts, *plan);
            check_launch("make_plan");
        }
    };
    if (tokens < many_from)
        launch(few_tokens{});
    else
        launch(many_tokens{});
}

/// Memory that the device can read: a host pointer in a device view would only fail later, and elsewhere.
inline void check_device_pointer(const char* function, const char* argument, const void* p, int device) {
    cudaPointerAttributes found{};
    const cudaError_t status = cudaPointerGetAttributes(&found, p);
    if (status != cudaSuccess) cudaGetLastError();
    const bool reachable =
        status == cudaSuccess && (found.type == cudaMemoryTypeManaged || found.type == cudaMemoryTypeDevice);
    require(reachable, function, argument, "device memory", "host memory");
    require(found.type == cudaMemoryTypeManaged || found.device == device, function, argument,
            "memory of device " + std::to_string(device), found.device);
}

template <layer_type L>
void run_combine(context<cuda>& ctx, const combine_arguments<typename L::value_type>& a) {
    using T = typename L::value_type;
    constexpr int copies = L::experts + L::c.free.constant, zeros = copies + L::c.free.copy, H = L::hidden;
    const auto launch = [&]<int Vector>() {
        constexpr int together = combine_tokens<H, Vector>, vectors = combine_vectors<H, Vector>;
        const dim3 grid(static_cast<unsigned>(ceil_div(a.tokens, int{together})),
                        unsigned{together > 1 ? 1 : ceil_div(int{vectors}, 256)});
        combine<T, H, L::slots, copies, zeros, (L::choices > L::experts), (L::shared_ffn > 0), L::c.shared.gate,
                L::c.router.scaled == scale_at::output, Vector><<<grid, 256, 0, ctx.stream()>>>(a);
        check_launch("forward: combine");
    };
    constexpr int wide = static_cast<int>(16 / sizeof(T));
    if (H % wide == 0 && a.y_stride % wide == 0 && a.x_stride % wide == 0)
        launch.template operator()<(H % wide == 0 ? wide : 1)>();
    else
        launch.template operator()<1>();
}

template <class W, layer_type L = typename W::layer_type>
void layer_forward(context<cuda>& ctx, const W& w, const batch<L, cuda>& in, const output_of<W>& y,
                   tape<L, cuda>* saved, const options<L>& o) {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    static_assert(check_supported<L>());
    const device_scope scope(ctx.device());
    check_device_pointer("forward", "x", in.x.data(), ctx.device());
    check_device_pointer("forward", "y", y.data(), ctx.device());
    const index_t tokens = in.x.extent(0), pairs = tokens * L::slots;
    carver arrays(ctx.workspace(forward_bytes<L>(tokens)));
    const forward_memory<L> memory(arrays, tokens);
    constexpr bool packed = is_packed<W>;
    if constexpr (sizeof(T) == 2 && L::hidden % 8 == 0) {
        require(in.x.row_stride() % 8 == 0 || tokens == 1, "forward", "x", "rows that begin at multiples of 16 bytes",
                in.x.row_stride());
        require(y.row_stride() % 8 == 0 || tokens == 1, "forward", "y", "rows that begin at multiples of 16 bytes",
                y.row_stride());
    }

    grouped_product<T> p;
    p.in = in.x.data();
    p.in_stride = in.x.row_stride();
    p.limit = static_cast<A>(o.limit);
    if (saved) p.pre = saved->gate_up().data();
    combine_arguments<T> c;
    c.z = memory.returned;
    c.z_stride = row_pitch(L::width);
    c.x = in.x.data();
    c.x_stride = in.x.row_stride();
    c.y = y.data();
    c.y_stride = y.row_stride();
    c.tokens = static_cast<int>(tokens);
    c.scale = static_cast<A>(o.scale);
    c.accumulate = o.accumulate;
    if constexpr (L::is_dense) {
        p.rows = static_cast<int>(tokens);
        const int tile_rows = tile_rows_for<T>(ctx, tokens, 1);
        stage_output<T> to{memory.activated, y.data(), y.row_stride(), true};
        if (o.accumulate) to = {memory.activated, memory.returned, row_pitch(L::width), false};
        run_experts<routed_kind<L>, packed, false>(ctx, routed_matrices(w), p, tokens, 1, tile_rows, to);
        if (o.accumulate) run_combine<L>(ctx, c);
    } else {
        constexpr bool on_input = L::c.router.acts_on == weight_at::input;
        const routing_view<L, cuda> routing = saved ? saved->routing()
                                                    : routing_view<L, cuda>{{memory.ids, {tokens, L::slots}},
                                                                            {memory.weights, {tokens, L::slots}},
                                                                            {memory.logits, {tokens, L::choices}}};
        const int tile_rows = tile_rows_for<T>(ctx, pairs, L::experts);
        plan_output plan{memory.offsets, memory.rows, memory.place, memory.tiles, memory.tile_count, tile_rows};
        if (saved) {
            const plan_view<cuda> kept = saved->plan();
            plan.offsets = kept.offsets.data();
            plan.rows = kept.rows.data();
            plan.place = kept.place.data();
        }
        route(ctx, policy_of<L>{}, w, in, o, routing, &plan, memory.counts);

        p.tiles = plan.tiles;
        p.tile_count = plan.tile_count;
        p.pairs = plan.rows;
        p.slots = L::slots;
        if constexpr (on_input) p.factor = routing.weights.data();
        run_experts<routed_kind<L>, packed, on_input>(
            ctx, routed_matrices(w), p, pairs, L::experts, tile_rows,
            {memory.activated, memory.returned, row_pitch(L::width), false, memory.scaled, plan.offsets + L::experts});
        if constexpr (L::shared_ffn > 0) {
            grouped_product<T> s;
            s.in = in.x.data();
            s.in_stride = in.x.row_stride();
            s.rows = static_cast<int>(tokens);
            s.limit = static_cast<A>(o.shared_limit);
            if (saved) s.pre = saved->shared_gate_up().data();
            run_experts<shared_kind<L>, packed, false>(
                ctx, shared_matrices(w), s, tokens, 1, tile_rows_for<T>(ctx, tokens, 1),
                {memory.shared_activated, memory.shared_returned, row_pitch(L::hidden), false});
            c.shared = memory.shared_returned;
            c.shared_stride = row_pitch(L::hidden);
            if constexpr (L::c.shared.gate) c.gate = w.shared_gate.data();
        }
        if constexpr (!on_input) c.weights = routing.weights.data();
        c.place = plan.place;
        c.ids = routing.ids.data();
        run_combine<L>(ctx, c);
        if (saved)
            check(cudaMemsetAsync(saved->logit_gradients().data(), 0,
                                  static_cast<std::size_t>(tokens * L::choices) * sizeof(A), ctx.stream()),
                  "forward: tape");
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
