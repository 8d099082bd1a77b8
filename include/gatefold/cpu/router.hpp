// The router on the CPU: logits of all tokens, then every token by itself.
//
//     x ── logits ──> z[T,N] ── choose ──> ids[T,S] ── scores of the chosen ──> weights[T,S]
//     d weights ── route_backward ──> dz (added to the gradients of losses) ── route_parameters_backward ──> d router,
//     dx
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/cpu/capacity.hpp>
#include <gatefold/cpu/router_logits.hpp>
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
    part_report* reports;
    A* keys;  ///< one row per part

    constexpr route_memory(carver& memory, index_t tokens, int threads)
        : logits(memory, tokens, threads),
          reports(memory.take<part_report>(threads)),
          keys(memory.take<A>(index_t{threads} * round_up(L::choices, 16))) {}
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
    const logits_memory<L> memory(count, tokens, threads);
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

/// Chooses the experts of one token from its logits.
template <layer_type L, class A = typename L::accumulate_type>
void choose_token(const A* z, const A* selection_bias, A* keys, std::int32_t* ids) {
    order_word<A> best[std::size_t{L::slots}];
    token_keys<L>(z, selection_bias, keys);
    if constexpr (L::c.router.groups > 1)
        choose_in_groups<L>(keys, best, ids);
    else
        best_of(
            L::choices, L::slots, [&](int i) { return order_key(keys[i]); }, best, ids);
}

/// Routes the tokens of `in`: ids in key order, -1 in empty slots, weights, and the logits they come from.
template <class W, layer_type L = typename W::layer_type>
void route(context<cpu>& ctx, const W& w, const batch<L>& in, const options<L>& o, const routing_view<L>& out,
           std::byte* scratch) {
    using A = typename L::accumulate_type;
    const index_t tokens = in.x.extent(0);
    carver arrays(scratch);
    const route_memory<L> memory(arrays, tokens, ctx.threads());
    compute_logits(ctx, w, in, o, out.logits, memory.logits);

    const int parts = token_parts(ctx, tokens);
    const auto* expert_scale = expert_scale_of(w);
    const A* selection_bias = selection_bias_of(w);
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(tokens, part, parts);
        A* keys = memory.keys + index_t{part} * round_up(L::choices, 16);
        part_report found;
        for (index_t t = mine.begin; t < mine.end; ++t) {
            const A* z = out.logits.row(t);
            std::int32_t* ids = out.ids.row(t);
            for (int e = 0; e < L::choices; ++e) {
                found.nan_logits += is_nan(z[e]) ? 1 : 0;
                found.infinite_logits += is_infinite(z[e]) ? 1 : 0;
            }
            const bool undecided = is_undecided(z, L::choices);
            found.undecided += undecided ? 1 : 0;
            if (in.chosen.data())
                for (int s = 0; s < L::slots; ++s) ids[s] = in.chosen(t, s);
            else if (undecided)
                for (int s = 0; s < L::slots; ++s) ids[s] = s;
            else
                choose_token<L>(z, selection_bias, keys, ids);
            if (undecided) {
                weigh_undecided<L>(ids, o.scale, expert_scale, out.weights.row(t));
            } else {
                A v[std::size_t{L::slots}];
                chosen_scores<L>(z, ids, v);
                weigh_token<L>(
                    v, ids, o.scale, o.epsilon, expert_scale, [](int) { return true; }, out.weights.row(t));
            }
        }
        memory.reports[part] = found;
    });

    routing_report& report = ctx.report();
    report.tokens += tokens;
    for (int part = 0; part < parts; ++part) {
        report.nan_logits += memory.reports[part].nan_logits;
        report.infinite_logits += memory.reports[part].infinite_logits;
        report.undecided += memory.reports[part].undecided;
    }
}

/// Adds the gradient that comes through the weights to d_logits, which holds that of the losses.
template <class W, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
void route_backward(context<cpu>& ctx, const W& w, const batch<L>&, const options<L>& o, const routing_view<L>& routing,
                    const view<A, dyn, L::slots>& d_weights, const view<A, dyn, L::choices>& d_logits) {
    const auto* expert_scale = expert_scale_of(w);
    for_each_token(ctx, routing.ids.extent(0), [&](index_t t) {
        const A* z = routing.logits.row(t);
        if (is_undecided(z, L::choices)) return;  // their weights are constants
        const std::int32_t* ids = routing.ids.row(t);
        A v[std::size_t{L::slots}];
        chosen_scores<L>(z, ids, v);
        token_backward<L>(
            z, v, ids, d_weights.row(t), o.scale, o.epsilon, expert_scale, [](int) { return true; }, d_logits.row(t));
    });
}

/// From the gradient of the logits to those of the router's parameters; dx gains the router's part. A backward pass of
/// a batch that has a router_x of its own gets its gradient in dx all the same.
template <class W, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
void route_parameters_backward(context<cpu>& ctx, const W& w, const batch<L>& in, const options<L>& o,
                               const view<A, dyn, L::choices>& d_logits, const view<A, dyn, L::hidden>& dx,
                               gradients<L>& g, bool accumulate, std::byte* scratch) {
    carver arrays(scratch);
    const logits_memory<L> memory(arrays, in.x.extent(0), ctx.threads());
    logits_backward(ctx, w, in, o, d_logits, dx, g, accumulate, memory);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <>
struct routing_impl<cpu> {
    template <class W, layer_type L = typename W::layer_type>
    static void route(context<cpu>& ctx, const W& w, const batch<L>& in, const options<L>& o,
                      const routing_view<L>& out) {
        on_cpu::route(ctx, w, in, o, out, ctx.workspace(on_cpu::route_scratch_bytes<L>(in.x.extent(0), ctx.threads())));
    }
    template <layer_type L>
    static void apply_capacity(context<cpu>& ctx, const batch<L>& in, const options<L>& o,
                               const routing_view<L>& routing, const view<std::uint8_t, dyn>& kept) {
        on_cpu::apply_capacity(ctx, in, o, routing, kept,
                               ctx.workspace(on_cpu::capacity_scratch_bytes<L>(in.x.extent(0))));
    }
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER
