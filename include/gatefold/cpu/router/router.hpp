// The router on the CPU: logits of all tokens, then every token by itself.
//
//     x ── logits ──> z[T,N] ── choose ──> ids[T,S] ── scores of the chosen ──> weights[T,S]
//     d weights ── route_backward ──> dz, added to that of losses ── route_parameters_backward ──> d router, dx
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/cpu/phases.hpp>
#include <gatefold/cpu/plan.hpp>
#include <gatefold/cpu/router/assign.hpp>
#include <gatefold/cpu/router/backward.hpp>
#include <gatefold/cpu/router/capacity.hpp>
#include <gatefold/cpu/router/choose.hpp>
#include <gatefold/cpu/router/columns.hpp>
#include <gatefold/cpu/router/logits.hpp>
#include <gatefold/cpu/router/row.hpp>
#include <gatefold/cpu/router/row_backward.hpp>
#include <gatefold/moe/router.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// What one part of the tokens found unusual; parts are added up in order.
struct alignas(64) part_report {
    index_t nan_logits = 0, infinite_logits = 0, undecided = 0;
};

/// Workspace of one routing call.
template <layer_type L>
struct route_memory {
    using A = typename L::accumulate_type;
    logits_memory<L> logits;
    assign_memory<L> assign;
    part_report* reports;
    A* keys;  ///< one row per part

    constexpr route_memory(carver& memory, index_t tokens, int threads)
        : logits(memory, tokens, threads),
          assign(memory, tokens),
          reports(memory.take<part_report>(threads)),
          keys(memory.take<A>(threads * key_row)) {}
    static constexpr index_t key_row = round_up(L::choices, 16);
};

/// Bytes that route needs, and apply_capacity after it.
template <layer_type L>
constexpr std::size_t route_scratch_bytes(index_t tokens, int threads) {
    carver count(nullptr);
    const route_memory<L> memory(count, tokens, threads);
    const std::size_t capacity = capacity_scratch_bytes<L>(tokens);
    return count.used() > capacity ? count.used() : capacity;
}
/// Bytes that route_parameters_backward needs.
template <layer_type L>
constexpr std::size_t route_backward_scratch_bytes(index_t tokens, int threads) {
    carver count(nullptr);
    const logits_backward_memory<L> memory(count, tokens, threads);
    return count.used();
}

template <class W>
const auto* expert_scale_of(const W& w) {
    if constexpr (W::layer_type::c.router.expert_scale)
        return w.expert_scale.data();
    else
        return static_cast<const typename W::layer_type::router_type*>(nullptr);
}
template <class W>
const auto* selection_bias_of(const W& w) {
    if constexpr (W::layer_type::c.router.selection_bias != key_bias::none)
        return w.selection_bias.data();
    else
        return static_cast<const typename W::layer_type::accumulate_type*>(nullptr);
}

/// The weights of one token from its ids; a second expert that is turned away loses its id.
template <layer_type L, class Scales, class A = typename L::accumulate_type>
void weigh(const A* z, bool undecided, const options<L>& o, const Scales* expert_scale, index_t token,
           std::int32_t* ids, A* weights) {
    using traits = router_traits<L>;
    A v[std::size_t{L::slots}];
    const auto all = [](int) { return true; };
    if (undecided) {
        weigh_undecided<L>(ids, o.scale, expert_scale, weights);
        for (int s = 0; s < L::slots; ++s) v[s] = A(1) / static_cast<A>(L::slots);
    } else {
        chosen_scores<L>(z, ids, v);
        if constexpr (L::c.router.learns_from == estimator::straight_through)
            for (int s = 0; s < L::slots; ++s) v[s] = A(1);
        weigh_token<L>(v, ids, o.scale, o.epsilon, expert_scale, all, weights);
    }
    if constexpr (traits::judges_second) {
        const counter_rng draw{o.seed, o.step, static_cast<int>(o.layer)};
        if (ids[1] < 0 || second_stays<L>(weights[1], v[1], static_cast<A>(o.threshold), o.training, draw, token))
            return;
        ids[1] = -1;
        weights[1] = 0;
        if (L::c.capacity.renormalise_kept && !undecided)
            weigh_token<L>(
                v, ids, o.scale, o.epsilon, expert_scale, [](int s) { return s == 0; }, weights);
    }
}

/// Routes one token: everything behind its logits.
template <layer_type L, class Scales, class A = typename L::accumulate_type>
void route_token(const A* z, bool undecided, bool has_ids, const A* selection_bias, const Scales* expert_scale,
                 const options<L>& o, index_t token, A* keys, std::int32_t* ids, A* weights) {
    constexpr selection select = L::c.router.select;
    if (!has_ids && undecided)
        for (int s = 0; s < L::slots; ++s) ids[s] = select == selection::positive ? -1 : s;
    if constexpr (select == selection::sparse_mixer) {
        if (!undecided) {
            A v[2], factor[2];
            mixer_choose(z, L::choices, static_cast<A>(o.noise), o.training,
                         counter_rng{o.seed, o.step, static_cast<int>(o.layer)}, token, has_ids, ids, v, factor);
            for (int s = 0; s < 2; ++s) v[s] = gatefold::mul(v[s], factor[s]);
            weigh_token<L>(
                v, ids, o.scale, o.epsilon, expert_scale, [](int) { return true; }, weights);
            return;
        }
    } else if (!has_ids && !undecided) {
        choose_token<L>(z, selection_bias, o, token, keys, ids);
    }
    weigh<L>(z, undecided, o, expert_scale, token, ids, weights);
}

/// Whether a router is one product over the rows as they lie, and everything behind it is done token by token: phases
/// that need no region of their own.
template <layer_type L>
constexpr bool routes_by_token() {
    constexpr router_config r = L::c.router;
    return r.logits == projection::linear && !logits_traits<L>::moves_input && r.transform == logit_transform::none &&
           r.from != score::softmax_tokens && !router_traits<L>::by_batch;
}

/// Everything behind the logits, as a phase of `parts` parts, and where there is a plan its counts; `has_ids`: out.ids
/// are chosen already.
template <class W, layer_type L = typename W::layer_type>
struct token_routing {
    using A = typename L::accumulate_type;
    const W& w;
    const batch<L>& in;
    const options<L>& o;
    routing_view<L> out;
    route_memory<L> memory;
    bool has_ids;
    int parts;
    const plan_builder* plan = nullptr;

    void operator()(int part) const {
        const bool given = in.chosen.data() != nullptr;
        const auto* expert_scale = expert_scale_of(w);
        const A* selection_bias = selection_bias_of(w);
        const range mine = part_of(out.ids.extent(0), part, parts);
        A* keys = memory.keys + part * route_memory<L>::key_row;
        part_report found;
        for (index_t t = mine.begin; t < mine.end; ++t) {
            A* z = out.logits.row(t);
            std::int32_t* ids = out.ids.row(t);
            if constexpr (routes_by_token<L>()) finish_logits(w, z);
            const bool undecided = count_unusual(z, L::choices, found);
            for (int s = 0; given && s < L::slots; ++s) ids[s] = in.chosen(t, s);
            if constexpr (L::c.router.from == score::softmax_tokens)
                weigh_by_column<L>(memory.assign.matrix + t * L::choices, ids, o, out.weights.row(t));
            else
                route_token<L>(z, undecided, has_ids, selection_bias, expert_scale, o, in.first_token + t, keys, ids,
                               out.weights.row(t));
        }
        memory.reports[part] = found;
        if (plan) plan->count(part);
    }

    /// Adds what was found unusual; once all parts are done.
    GATEFOLD_INLINE void add_to(routing_report& report) const {
        report.tokens += out.ids.extent(0);
        for (int part = 0; part < parts; ++part) {
            report.nan_logits += memory.reports[part].nan_logits;
            report.infinite_logits += memory.reports[part].infinite_logits;
            report.undecided += memory.reports[part].undecided;
        }
    }
};

/// Routes the tokens of `in`: ids in key order, -1 in empty slots, weights, and the logits they come from. Ids given
/// from outside are taken as they are, whatever the configuration would choose. `deviations` as in compute_logits.
template <class W, layer_type L = typename W::layer_type>
void route(context<cpu>& ctx, const W& w, const batch<L>& in, const options<L>& o, const routing_view<L>& out,
           std::byte* scratch, typename L::accumulate_type* deviations = nullptr) {
    check_options("route", o);
    const index_t tokens = in.x.extent(0);
    carver arrays(scratch);
    const route_memory<L> memory(arrays, tokens, ctx.threads());
    token_routing<W> routing{w, in, o, out, memory, in.chosen.data() != nullptr, token_parts(ctx, tokens)};
    phase_list phases;
    if constexpr (routes_by_token<L>()) {
        const auto logits = product_of_logits(ctx, w, router_rows(in, 0), out.logits, memory.logits);
        phases.add(logits.parts(), logits);
        phases.add(routing.parts, routing);
        ctx.parallel(phases);
    } else {
        compute_logits(ctx, w, in, o, out.logits, memory.logits, deviations);
        if constexpr (L::c.router.from == score::softmax_tokens) score_columns(ctx, in, out, memory.assign);
        if (!routing.has_ids) routing.has_ids = assign_batch(ctx, in, o, out, memory.assign);
        phases.add(routing.parts, routing);
        ctx.parallel(phases);
    }
    routing.add_to(ctx.report());
}

/// The ids over which a token's weights were divided: those of the routing, and a second expert that was turned away.
template <layer_type L, class A = typename L::accumulate_type>
const std::int32_t* divided_ids(const A* z, const A* selection_bias, const batch<L>& in, const options<L>& o,
                                index_t token, const std::int32_t* ids, std::int32_t* again) {
    if constexpr (router_traits<L>::judges_second && !L::c.capacity.renormalise_kept &&
                  L::c.router.renorm != renormalise::none) {
        if (ids[1] >= 0 || in.chosen.data()) return ids;
        A keys[std::size_t{L::choices}];
        choose_token<L>(z, selection_bias, o, token, keys, again);
        return again;
    } else {
        return ids;
    }
}

/// Adds the gradient that comes through the weights to d_logits, which holds that of the losses.
///
/// d_weights must be zero for empty and dropped slots. Choices are constants; so are the weights of tokens without a
/// logit above -inf.
template <class W, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
void route_backward(context<cpu>& ctx, const W& w, const batch<L>& in, const options<L>& o,
                    const routing_view<L>& routing, const view<A, dyn, L::slots>& d_weights,
                    const view<A, dyn, L::choices>& d_logits) {
    if constexpr (L::c.router.from == score::softmax_tokens) {
        columns_backward(ctx, in, o, routing, d_weights, d_logits);
    } else {
        const auto* expert_scale = expert_scale_of(w);
        const A* selection_bias = selection_bias_of(w);
        for_each_token(ctx, routing.ids.extent(0), [&](index_t t) {
            const A* z = routing.logits.row(t);
            if (row_undecided(z, L::choices)) return;
            if constexpr (L::c.router.select == selection::sparse_mixer) {
                A d[2];
                for (int s = 0; s < 2; ++s)
                    d[s] = routing.ids(t, s) < 0
                               ? A(0)
                               : scale_weight<L>(d_weights(t, s), o.scale, expert_scale, routing.ids(t, s));
                mixer_backward(z, L::choices, static_cast<A>(o.noise), routing.ids.row(t), d, d_logits.row(t));
            } else {
                std::int32_t again[std::size_t{L::slots}];
                const std::int32_t* ids =
                    divided_ids(z, selection_bias, in, o, in.first_token + t, routing.ids.row(t), again);
                A v[std::size_t{L::slots}];
                chosen_scores<L>(z, ids, v);
                const auto counts = [&](int s) {
                    return !L::c.capacity.renormalise_kept || !(routing.weights(t, s) == A(0));
                };
                token_backward<L>(z, v, ids, d_weights.row(t), o.scale, o.epsilon, expert_scale, counts,
                                  d_logits.row(t));
            }
        });
    }
}

/// The gradient of the experts' own scales: the sum over a token's weights of d weight · weight / scale.
template <class W, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
void expert_scale_backward(context<cpu>& ctx, const W& w, const batch<L>& in, const options<L>& o,
                           const routing_view<L>& routing, const view<A, dyn, L::slots>& d_weights, gradients<L>& g,
                           bool accumulate) {
    static_assert(L::c.router.expert_scale);
    constexpr int N = L::choices;
    const A* unscaled = nullptr;
    const A* selection_bias = selection_bias_of(w);
    const int parts = N < ctx.threads() ? N : ctx.threads();
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(N, part, parts);
        A* d = g.expert_scale.data();
        if (!accumulate)
            for (index_t e = mine.begin; e < mine.end; ++e) d[e] = 0;
        for (index_t t = 0; t < routing.ids.extent(0); ++t) {
            const std::int32_t* ids = routing.ids.row(t);
            const auto is_mine = [&](int s) { return ids[s] >= mine.begin && ids[s] < mine.end; };
            bool asked = false;
            for (int s = 0; s < L::slots; ++s) asked = asked || is_mine(s);
            if (!asked) continue;
            // The weight without its expert's scale, which may be zero.
            A plain[std::size_t{L::slots}];
            const A* z = routing.logits.row(t);
            if (row_undecided(z, N)) {
                weigh_undecided<L>(ids, o.scale, unscaled, plain);
            } else {
                std::int32_t again[std::size_t{L::slots}];
                const std::int32_t* divided = divided_ids(z, selection_bias, in, o, in.first_token + t, ids, again);
                A v[std::size_t{L::slots}];
                chosen_scores<L>(z, divided, v);
                weigh_token<L>(
                    v, divided, o.scale, o.epsilon, unscaled, [](int) { return true; }, plain);
            }
            for (int s = 0; s < L::slots; ++s)
                if (is_mine(s)) d[ids[s]] = gatefold::fma(d_weights(t, s), plain[s], d[ids[s]]);
        }
    });
}

/// From the gradient of the logits to those of the router's parameters; dx gains the gradient of what the router read,
/// router_x where the batch has one.
template <class W, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
void route_parameters_backward(context<cpu>& ctx, const W& w, const batch<L>& in, const options<L>& o,
                               const view<A, dyn, L::choices>& d_logits, const view<A, dyn, L::hidden>& dx,
                               gradients<L>& g, bool accumulate, std::byte* scratch, const A* d_deviations = nullptr) {
    carver arrays(scratch);
    const logits_backward_memory<L> memory(arrays, in.x.extent(0), ctx.threads());
    logits_backward(ctx, w, in, o, d_logits, dx, g, accumulate, memory, d_deviations);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <>
struct routing_impl<cpu> {
    template <class W, layer_type L = typename W::layer_type>
    static void route(context<cpu>& ctx, const W& w, const batch<L>& in, const options<L>& o,
                      const routing_view<L>& out) {
        GATEFOLD_HOST_ONLY(on_cpu::route(ctx, w, in, o, out,
                                         ctx.workspace(on_cpu::route_scratch_bytes<L>(in.x.extent(0), ctx.threads())));)
    }
    template <layer_type L>
    static void apply_capacity(context<cpu>& ctx, const batch<L>& in, const options<L>& o,
                               const routing_view<L>& routing, const view<std::uint8_t, dyn>& kept) {
        GATEFOLD_HOST_ONLY(on_cpu::apply_capacity(ctx, in, o, routing, kept,
                                                  ctx.workspace(on_cpu::capacity_scratch_bytes<L>(in.x.extent(0))));)
    }
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER
