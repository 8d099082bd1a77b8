// Experts that compute nothing, on the CPU: their part of the combine and of its backward. And the token's part in a
// blend of an expert and its token.
//
//     zero      f(x) = 0
//     copy      f(x) = x
//     constant  f(x) = a1 x + a2 v,  (a1, a2) = softmax(constant_gate x), v learned
//
// They follow the experts with weights in the router's numbering (constants, copies, zeros), so a token's sum stays in
// ascending order of experts when they are added after those.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/cpu/rows.hpp>
#include <gatefold/moe/call.hpp>
#include <gatefold/moe/plan.hpp>
#include <gatefold/moe/router_math.hpp>
#include <gatefold/moe/weights.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Where the kinds begin in the numbering of layer L's choices.
template <layer_type L>
struct free_kinds {
    static constexpr int constants = L::experts, copies = constants + L::c.free.constant,
                         zeros = copies + L::c.free.copy;
};

/// The mix (a1, a2) of constant expert c for the row x.
template <class A, class W, class T>
void constant_mix(const W& w, int c, const T* x, index_t hidden, A (&mix)[2]) {
    const auto* gate = w.constant_gate.data() + index_t{c} * 2 * hidden;
    const A z[2] = {dot<A>(x, gate, hidden), dot<A>(x, gate + hidden, hidden)};
    const A m = largest(z, 2), first = softmax_term(z[0], m), second = softmax_term(z[1], m), total = first + second;
    mix[0] = share_of(first, total);
    mix[1] = share_of(second, total);
}

/// Adds what free experts return, times its weight, to the tokens' sums.
template <class W, layer_type L = typename W::layer_type>
void free_experts_forward(context<cpu>& ctx, const W& w, const batch<L>& in, const plan_view<cpu>& plan,
                          const routing_view<L>& routing, typename L::accumulate_type* sums, index_t stride) {
    using A = typename L::accumulate_type;
    using kinds = free_kinds<L>;
    constexpr int H = L::hidden;
    const index_t tokens = in.x.extent(0);
    const int parts = static_cast<int>(tokens < ctx.threads() ? tokens : ctx.threads());
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(tokens, part, parts);
        for (index_t t = mine.begin; t < mine.end; ++t) {
            const std::int32_t* place = plan.place.data() + t * L::slots;
            const ordered_slots<L::slots> order(place);
            for (int i = 0; i < order.count; ++i) {
                const int s = order.slot[i];
                const std::int32_t e = routing.ids(t, s);
                if (e < kinds::constants || e >= kinds::zeros) continue;
                const A weight = routing.weights(t, s);
                if (e >= kinds::copies) {
                    add_scaled(sums + t * stride, weight, in.x.row(t), H);
                } else if constexpr (L::c.free.constant > 0) {
                    const int c = e - kinds::constants;
                    A mix[2];
                    constant_mix(w, c, in.x.row(t), H, mix);
                    add_scaled(sums + t * stride, gatefold::mul(weight, mix[0]), in.x.row(t), H);
                    add_scaled(sums + t * stride, gatefold::mul(weight, mix[1]),
                               w.constant_value.data() + index_t{c} * H, H);
                }
            }
        }
    });
}

/// Adds (1 - weight) x to the sum of every token that reached its expert.
template <layer_type L>
void blend_forward(context<cpu>& ctx, const batch<L>& in, const plan_view<cpu>& plan, const routing_view<L>& routing,
                   typename L::accumulate_type* sums, index_t stride) {
    using A = typename L::accumulate_type;
    const index_t tokens = in.x.extent(0);
    const int parts = static_cast<int>(tokens < ctx.threads() ? tokens : ctx.threads());
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(tokens, part, parts);
        for (index_t t = mine.begin; t < mine.end; ++t)
            if (plan.place[t] >= 0) add_scaled(sums + t * stride, A(1) - routing.weights(t, 0), in.x.row(t), L::hidden);
    });
}

/// Adds the same part of the gradients: dx [T, H] and that of the weights.
template <layer_type L>
void blend_backward(context<cpu>& ctx, const batch<L>& in, const plan_view<cpu>& plan, const routing_view<L>& routing,
                    const view<const typename L::value_type, dyn, L::hidden>& dy,
                    typename L::accumulate_type* d_weights, typename L::accumulate_type* dx) {
    using A = typename L::accumulate_type;
    const index_t tokens = in.x.extent(0);
    const int parts = static_cast<int>(tokens < ctx.threads() ? tokens : ctx.threads());
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(tokens, part, parts);
        for (index_t t = mine.begin; t < mine.end; ++t) {
            if (plan.place[t] < 0) continue;
            add_scaled(dx + t * L::hidden, A(1) - routing.weights(t, 0), dy.row(t), L::hidden);
            d_weights[t] -= dot<A>(dy.row(t), in.x.row(t), L::hidden);
        }
    });
}

/// What backward needs of one row of a constant expert.
template <class A>
struct constant_gradient {
    A mix[2];    ///< (a1, a2)
    A d_mix[2];  ///< gradient of the gate's two logits
    A d_weight;  ///< <dy, f(x)>
};

template <class A, class W, class T>
constant_gradient<A> constant_backward(const W& w, int c, const T* x, const T* dy, A weight, index_t hidden) {
    constant_gradient<A> row;
    constant_mix(w, c, x, hidden, row.mix);
    const A d[2] = {dot<A>(dy, x, hidden), dot<A>(dy, w.constant_value.data() + index_t{c} * hidden, hidden)};
    row.d_weight = gatefold::fma(row.mix[0], d[0], gatefold::mul(row.mix[1], d[1]));
    for (int j = 0; j < 2; ++j) row.d_mix[j] = gatefold::mul(gatefold::mul(weight, row.mix[j]), d[j] - row.d_weight);
    return row;
}

/// Adds the free experts' part to dx [T, H], writes d_weights of their pairs, and the gradients of constant experts.
template <class W, layer_type L = typename W::layer_type>
void free_experts_backward(context<cpu>& ctx, const W& w, const batch<L>& in, const plan_view<cpu>& plan,
                           const routing_view<L>& routing, const view<const typename L::value_type, dyn, L::hidden>& dy,
                           typename L::accumulate_type* d_weights, typename L::accumulate_type* dx, gradients<L>& g,
                           const options<L>& o, std::byte*) {
    using A = typename L::accumulate_type;
    using kinds = free_kinds<L>;
    constexpr int H = L::hidden;
    const index_t tokens = in.x.extent(0);
    const int parts = static_cast<int>(tokens < ctx.threads() ? tokens : ctx.threads());
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(tokens, part, parts);
        for (index_t t = mine.begin; t < mine.end; ++t) {
            const std::int32_t* place = plan.place.data() + t * L::slots;
            const ordered_slots<L::slots> order(place);
            for (int i = 0; i < order.count; ++i) {
                const int s = order.slot[i];
                const std::int32_t e = routing.ids(t, s);
                if (e < kinds::constants || e >= kinds::zeros) continue;
                const A weight = routing.weights(t, s);
                if (e >= kinds::copies) {
                    d_weights[t * L::slots + s] = dot<A>(dy.row(t), in.x.row(t), H);
                    add_scaled(dx + t * H, weight, dy.row(t), H);
                } else if constexpr (L::c.free.constant > 0) {
                    const int c = e - kinds::constants;
                    const auto row = constant_backward<A>(w, c, in.x.row(t), dy.row(t), weight, H);
                    const auto* gate = w.constant_gate.data() + index_t{c} * 2 * H;
                    d_weights[t * L::slots + s] = row.d_weight;
                    add_scaled(dx + t * H, gatefold::mul(weight, row.mix[0]), dy.row(t), H);
                    add_scaled(dx + t * H, row.d_mix[0], gate, H);
                    add_scaled(dx + t * H, row.d_mix[1], gate + H, H);
                }
            }
        }
    });
    if constexpr (L::c.free.constant > 0) {
        // One constant expert is one thread's: its rows are summed upwards.
        const int shares = L::c.free.constant < ctx.threads() ? L::c.free.constant : ctx.threads();
        ctx.parallel(shares, [&](int part) {
            const range mine = part_of(L::c.free.constant, part, shares);
            for (index_t c = mine.begin; c < mine.end; ++c) {
                A* d_gate = g.constant_gate.data() + c * 2 * H;
                A* d_value = g.constant_value.data() + c * H;
                if (!o.accumulate)
                    for (int h = 0; h < H; ++h) d_gate[h] = d_gate[H + h] = d_value[h] = A(0);
                const index_t e = kinds::constants + c;
                for (index_t r = plan.offsets[e]; r < plan.offsets[e + 1]; ++r) {
                    const index_t pair = plan.rows[r], t = pair / L::slots;
                    const A weight = routing.weights(t, pair % L::slots);
                    const auto row = constant_backward<A>(w, static_cast<int>(c), in.x.row(t), dy.row(t), weight, H);
                    add_scaled(d_gate, row.d_mix[0], in.x.row(t), H);
                    add_scaled(d_gate + H, row.d_mix[1], in.x.row(t), H);
                    add_scaled(d_value, gatefold::mul(weight, row.mix[1]), dy.row(t), H);
                }
            }
        });
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
