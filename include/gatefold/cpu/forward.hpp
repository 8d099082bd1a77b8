// Forward of the layer on the CPU: route, plan, experts with the combine fused into them, shared expert.
//
//     x ── route ──> ids, weights ── capacity ──> kept ── plan ──> rows ── experts ──> sums[t] += w · z ──> y
//
// Where y holds the type that sums are kept in, it is the sums; otherwise they lie in the workspace and are rounded
// once.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

#include <gatefold/core/workspace.hpp>
#include <gatefold/cpu/experts/experts.hpp>
#include <gatefold/cpu/experts/free.hpp>
#include <gatefold/cpu/experts/packed.hpp>
#include <gatefold/cpu/latent.hpp>
#include <gatefold/cpu/one_token.hpp>
#include <gatefold/cpu/plan.hpp>
#include <gatefold/cpu/router/capacity.hpp>
#include <gatefold/cpu/router/router.hpp>
#include <gatefold/cpu/rows.hpp>
#include <gatefold/moe/tape.hpp>
#include <gatefold/ops/rows.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// The workspace of one forward call. Routing and plan lie on the tape where there is one.
template <layer_type L>
struct forward_memory {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    static constexpr index_t routed(index_t tokens) { return L::is_dense ? 0 : tokens; }
    static constexpr bool limited = drops(L::c);

    std::int32_t *ids, *offsets, *rows, *place;
    A *weights, *logits, *sums, *shared_gate;
    A *latent_sums, *latent_normal;
    T *latent_x, *disturbed_x, *multiplied_x;
    std::uint8_t* kept;
    std::byte *route, *plan, *experts, *products;

    constexpr forward_memory(carver& memory, index_t tokens, int threads)
        : ids(memory.take<std::int32_t>(routed(tokens) * L::slots)),
          offsets(memory.take<std::int32_t>(L::choices + 1)),
          rows(memory.take<std::int32_t>(routed(tokens) * L::slots)),
          place(memory.take<std::int32_t>(routed(tokens) * L::slots)),
          weights(memory.take<A>(routed(tokens) * L::slots)),
          logits(memory.take<A>(routed(tokens) * L::choices)),
          sums(memory.take<A>(tokens * L::hidden)),
          shared_gate(memory.take<A>(L::c.shared.gate ? tokens : 0)),
          latent_sums(memory.take<A>(tokens * L::c.latent)),
          latent_normal(memory.take<A>(tokens * L::c.latent)),
          latent_x(memory.take<T>(tokens * L::c.latent)),
          disturbed_x(memory.take<T>(shares_jitter(L::c) ? tokens * L::hidden : 0)),
          multiplied_x(memory.take<T>(L::c.router.input_times_k ? tokens * L::hidden : 0)),
          kept(memory.take<std::uint8_t>(limited ? tokens * L::slots : 0)),
          route(memory.take<std::byte>(L::is_dense ? 0 : bytes(route_scratch_bytes<L>(tokens, threads)))),
          plan(memory.take<std::byte>(bytes(plan_scratch_bytes(L::choices, threads)))),
          experts(memory.take<std::byte>(bytes(expert_bytes(tokens, threads)))),
          products(memory.take<std::byte>(L::c.latent > 0 ? bytes(product_scratch_bytes(threads)) : 0)) {}

private:
    static constexpr index_t bytes(std::size_t n) { return static_cast<index_t>(n); }
    static constexpr std::size_t expert_bytes(index_t tokens, int threads) {
        const std::size_t own =
            expert_scratch_bytes<routed_expert<L>>(threads, L::is_dense ? tokens : max_rows(L::c, tokens));
        const std::size_t shared =
            L::shared_ffn > 0 ? expert_scratch_bytes<shared_expert<L>>(threads, tokens) : std::size_t{0};
        return own > shared ? own : shared;
    }
};

template <layer_type L>
constexpr std::size_t forward_bytes(index_t tokens, int threads) {
    carver count(nullptr);
    forward_memory<L> memory(count, tokens, threads);
    return count.used();
}

/// The batch as experts read it: with noise that they share with the router.
template <layer_type L, class Memory>
batch<L> experts_batch(context<cpu>& ctx, const batch<L>& in, const options<L>& o, const Memory& memory) {
    batch<L> out = in;
    if constexpr (shares_jitter(L::c)) {
        if (is_disturbed<L>(o)) {
            disturb_rows(ctx, in, o, memory.disturbed_x);
            out.x = {memory.disturbed_x, {in.x.extent(0), L::hidden}};
        }
    }
    return out;
}
/// The batch as routed experts read it: times k where the configuration says so.
template <layer_type L, class Memory>
batch<L> routed_batch(context<cpu>& ctx, const batch<L>& in, const Memory& memory) {
    batch<L> out = in;
    if constexpr (L::c.router.input_times_k) {
        using A = typename L::accumulate_type;
        const vec<A> k = broadcast<A>(static_cast<A>(L::top_k));
        for_each_token(ctx, in.x.extent(0), [&](index_t t) {
            map<A>(
                L::hidden, [&](vec<A> x) { return mul(x, k); }, memory.multiplied_x + t * L::hidden, in.x.row(t));
        });
        out.x = {memory.multiplied_x, {in.x.extent(0), L::hidden}};
    }
    return out;
}

/// The gate of the shared expert for every token: the logistic function of x · w_g.
template <class W, layer_type L = typename W::layer_type>
void shared_gate_values(context<cpu>& ctx, const W& w, const batch<L>& in, typename L::accumulate_type* gate) {
    using A = typename L::accumulate_type;
    const index_t tokens = in.x.extent(0);
    const int parts = static_cast<int>(tokens < ctx.threads() ? tokens : ctx.threads());
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(tokens, part, parts);
        for (index_t t = mine.begin; t < mine.end; ++t)
            gate[t] = sigmoid(dot<A>(in.x.row(t), w.shared_gate.data(), L::hidden));
    });
}

/// Adds the shared expert's output, times its gate, to the sums, which are rounded to `result` then.
template <class W, layer_type L = typename W::layer_type>
void add_shared(context<cpu>& ctx, const W& w, const batch<L>& in, typename L::accumulate_type* sums, index_t stride,
                tape<L>* saved, const options<L>& o, const forward_memory<L>& memory,
                const round_into<typename L::value_type>& result) {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    const index_t tokens = in.x.extent(0);
    combine_into<A> target{sums, stride, tokens, nullptr, nullptr, 1, false};
    if constexpr (L::c.shared.gate) {
        shared_gate_values(ctx, w, in, memory.shared_gate);
        target.weights = memory.shared_gate;
    }
    kept_activations<T> keep;
    if (saved) keep.pre = saved->shared_gate_up().data();
    const expert_input<T> input{{1, nullptr, tokens}, {in.x.data(), in.x.row_stride()}};
    run_experts<shared_expert<L>>(ctx, memory.experts, input, shared_weights(w), static_cast<A>(o.shared_limit),
                                  ctx.sums(), keep, target, no_dropout{}, result);
}

/// Whether routing and plan are phases of the region in which the routed experts run. Sparse weights choose their
/// kernels by the plan, and capacities are a matter of the whole batch.
template <class W, layer_type L = typename W::layer_type>
constexpr bool routes_in_stage() {
    return routes_by_token<L>() && !drops(L::c) &&
           !brings_stage<std::remove_cvref_t<decltype(routed_weights(std::declval<const W&>()))>>;
}

/// Routes the tokens and builds their plan, on the tape or in the workspace.
template <class W, layer_type L = typename W::layer_type>
void route_and_plan(context<cpu>& ctx, const W& w, const batch<L>& in, const options<L>& o,
                    const routing_view<L>& routing, const plan_view<cpu>& plan, const forward_memory<L>& memory,
                    typename L::accumulate_type* deviations) {
    route(ctx, w, in, o, routing, memory.route, deviations);
    std::uint8_t* kept = nullptr;
    if constexpr (forward_memory<L>::limited) {
        kept = memory.kept;
        apply_capacity(ctx, in, o, routing, view<std::uint8_t, dyn>{kept, {routing.ids.extent(0) * L::slots}},
                       memory.route);
    }
    build_plan(ctx, routing.ids.data(), kept, L::choices, plan, memory.plan);
}

/// What the routed experts read: the rows of a plan, times their weight where weights act on inputs.
template <class W, layer_type L = typename W::layer_type>
rows_of<typename L::value_type> routed_rows(context<cpu>& ctx, const W& w, const batch<L>& read,
                                            const plan_view<cpu>& plan, const typename L::accumulate_type* weights,
                                            const forward_memory<L>& memory) {
    constexpr bool on_input = L::c.router.acts_on == weight_at::input;
    rows_of<typename L::value_type> x{read.x.data(), read.x.row_stride(), plan.rows.data(), L::slots,
                                      on_input ? weights : nullptr};
    if constexpr (L::c.latent > 0) {
        latent_inputs(ctx, memory.products, w, read, memory.latent_x);
        x.data = memory.latent_x;
        x.stride = L::width;
    }
    return x;
}

/// What follows the weighted sums of the routed experts: free experts, blend, scale, and from a latent width back to
/// the hidden one. `given` is what experts_batch, `read` what routed_batch made of the batch.
template <class W, layer_type L = typename W::layer_type>
void finish_routed(context<cpu>& ctx, const W& w, const batch<L>& given, const batch<L>& read,
                   const plan_view<cpu>& plan, const routing_view<L>& routing, typename L::accumulate_type* routed,
                   index_t routed_stride, typename L::accumulate_type* sums, index_t stride, const options<L>& o,
                   const forward_memory<L>& memory) {
    using A = typename L::accumulate_type;
    const index_t tokens = given.x.extent(0);
    if constexpr (L::choices > L::experts) free_experts_forward(ctx, w, read, plan, routing, routed, routed_stride);
    if constexpr (L::c.router.acts_on == weight_at::blend)
        blend_forward(ctx, given, plan, routing, routed, routed_stride);
    if constexpr (L::c.router.scaled == scale_at::output) {
        const vec<A> scale = broadcast<A>(static_cast<A>(o.scale));
        for_each_token(ctx, tokens, [&](index_t t) {
            A* sums_of_token = routed + t * routed_stride;
            map<A>(
                L::width, [&](vec<A> sum) { return mul(sum, scale); }, sums_of_token, sums_of_token);
        });
    }
    if constexpr (L::c.latent > 0) {
        latent_normalised(ctx, w, routed, tokens, memory.latent_normal);
        latent_outputs(ctx, memory.products, w, memory.latent_normal, tokens, sums, stride);
    }
}

/// The stage of the routed experts, or of the dense FFN.
template <layer_type L, class X, class W, class Target, class Drop>
void run_routed(context<cpu>& ctx, std::byte* scratch, const expert_input<X>& in, const W& w, const options<L>& o,
                const kept_activations<typename L::value_type>& keep, const Target& target, const Drop& drop,
                const round_into<typename L::value_type>& result = {}) {
    run_experts<routed_expert<L>>(ctx, scratch, in, routed_weights(w),
                                  static_cast<typename L::accumulate_type>(o.limit), ctx.sums(), keep, target, drop,
                                  result);
}

/// Whether the sums of the routed experts are what the layer returns, without a step behind the stage.
template <layer_type L>
constexpr bool ends_with_routed() {
    constexpr bool free_experts = L::choices > L::experts, blends = L::c.router.acts_on == weight_at::blend;
    constexpr bool scales = L::c.router.scaled == scale_at::output;
    return !free_experts && !blends && !scales && L::c.latent == 0 && L::shared_ffn == 0;
}

/// Adds the routed experts' weighted outputs to sums that it sets to zero before; `given` is what experts_batch made of
/// `in`. Rounds the sums to `result` where nothing else is added to them.
template <class W, layer_type L = typename W::layer_type>
GATEFOLD_INLINE void add_routed(context<cpu>& ctx, const W& w, const batch<L>& in, const batch<L>& given,
                                typename L::accumulate_type* sums, index_t stride, tape<L>* saved, const options<L>& o,
                                const forward_memory<L>& memory, const round_into<typename L::value_type>& result) {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    constexpr bool on_input = L::c.router.acts_on == weight_at::input;
    const index_t tokens = in.x.extent(0), pairs = tokens * L::slots;
    const routing_view<L> routing = saved ? saved->routing()
                                          : routing_view<L>{{memory.ids, {tokens, L::slots}},
                                                            {memory.weights, {tokens, L::slots}},
                                                            {memory.logits, {tokens, L::choices}}};
    const plan_view<cpu> plan = saved ? saved->plan()
                                      : plan_view<cpu>{{memory.offsets, {L::choices + 1}},
                                                       {memory.rows, {pairs}},
                                                       {memory.place, {pairs}},
                                                       tokens,
                                                       L::slots};
    if constexpr (routes_in_stage<W>())
        check_options("route", o);
    else
        route_and_plan(ctx, w, in, o, routing, plan, memory, saved ? saved->deviations().data() : nullptr);
    if (saved) {
        for (index_t i = 0; i < tokens * L::choices; ++i) saved->logit_gradients().data()[i] = 0;
        for (index_t i = 0; i < saved->deviations().size(); ++i) saved->deviation_gradients().data()[i] = 0;
    }
    const batch<L> read = routed_batch(ctx, given, memory);
    const A* weights = routing.weights.data();
    kept_activations<T> keep;
    if (saved) keep.pre = saved->gate_up().data();
    A* routed = sums;
    index_t routed_stride = stride;
    if constexpr (L::c.latent > 0) {
        routed = saved ? saved->latent_sums().data() : memory.latent_sums;
        routed_stride = L::width;
    }
    expert_input<T> input{{L::experts, plan.offsets.data(), 0}, routed_rows(ctx, w, read, plan, weights, memory)};
    const combine_into<A> target{routed,           routed_stride, tokens, on_input ? nullptr : weights,
                                 plan.rows.data(), L::slots,      true};
    const auto run = [&] {
        run_routed<L>(ctx, memory.experts, input, w, o, keep, target,
                      dropout_of(o, in.first_token, plan.rows.data(), L::slots),
                      ends_with_routed<L>() ? result : round_into<T>{});
    };
    if constexpr (routes_in_stage<W>()) {
        carver arrays(memory.route);
        const route_memory<L> own(arrays, tokens, ctx.threads());
        const auto logits = product_of_logits(ctx, w, router_rows(in, 0), routing.logits, own.logits);
        const int parts = token_parts(ctx, tokens);
        const plan_builder places(parts, routing.ids.data(), nullptr, L::choices, plan, memory.plan);
        const token_routing<W> choice{w, in, o, routing, own, in.chosen.data() != nullptr, parts, &places};
        phase_list before;
        before.add(logits.parts(), logits);
        before.add(parts, choice);
        before.add(parts, places);
        input.before = &before;
        input.most_rows = pairs;
        run();
        choice.add_to(ctx.report());
    } else {
        run();
    }
    finish_routed(ctx, w, given, read, plan, routing, routed, routed_stride, sums, stride, o, memory);
}

/// Rounds the tokens' sums, or adds them to what is there.
template <layer_type L>
void round_sums(context<cpu>& ctx, const typename L::accumulate_type* sums,
                const round_into<typename L::value_type>& result) {
    const int parts = static_cast<int>(result.rows < ctx.threads() ? result.rows : ctx.threads());
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(result.rows, part, parts);
        for (index_t t = mine.begin; t < mine.end; ++t) round_row(sums, L::hidden, result, t, 0, L::hidden);
    });
}

template <class W, layer_type L = typename W::layer_type>
void layer_forward(context<cpu>& ctx, const W& w, const batch<L>& in, const output_of<W>& y, tape<L>* saved,
                   const options<L>& o) {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    const index_t tokens = in.x.extent(0);
    if constexpr (takes_one_token<W>())
        if (tokens == 1 && !saved && !o.training)
            return forward_one_token<W>(
                ctx, w,
                {in.x.data(), in.router_x.data() ? in.router_x.data() : in.x.data(), in.chosen.data(), in.first_token},
                y.data(), o);
    carver arrays(ctx.workspace(forward_bytes<L>(tokens, ctx.threads())));
    const forward_memory<L> memory(arrays, tokens, ctx.threads());

    A* sums = memory.sums;
    index_t stride = L::hidden;
    round_into<T> result{y.data(), y.row_stride(), tokens, o.accumulate};
    if constexpr (std::is_same_v<T, A>)
        if (!o.accumulate) sums = y.data(), stride = y.row_stride(), result = {};

    if constexpr (L::is_dense) {
        kept_activations<T> keep;
        if (saved) keep.pre = saved->gate_up().data();
        const expert_input<T> input{{1, nullptr, tokens}, {in.x.data(), in.x.row_stride()}};
        run_routed<L>(ctx, memory.experts, input, w, o, keep, rows_into<A>{sums, stride},
                      dropout_of(o, in.first_token, nullptr, 1), result);
    } else {
        const batch<L> given = experts_batch(ctx, in, o, memory);
        add_routed(ctx, w, in, given, sums, stride, saved, o, memory, result);
        if constexpr (L::shared_ffn > 0) add_shared(ctx, w, given, sums, stride, saved, o, memory, result);
        if constexpr (L::shared_ffn == 0 && !ends_with_routed<L>())
            if (result.to) round_sums<L>(ctx, sums, result);
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
