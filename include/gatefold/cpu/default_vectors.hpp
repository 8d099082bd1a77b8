// One step of the running means of what experts return, on the CPU.
//
//     pre-activations of the tape ── activation ──> Σ a[E,F] over an expert's rows, upwards
//                                   Σ a ── · down ── / count ── + bias ──> mean output ── decay ──> v[E,H]
//
// The down projection is linear, so no expert runs again.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/core/workspace.hpp>
#include <gatefold/cpu/forward.hpp>
#include <gatefold/cpu/rows.hpp>
#include <gatefold/moe/balance.hpp>
#include <gatefold/moe/tape.hpp>
#include <gatefold/ops/activation.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Workspace of update_default_vectors: sums [E, F] and how many rows they are of.
template <layer_type L>
struct default_vectors_memory {
    using A = typename L::accumulate_type;
    A* sums;
    index_t* counts;

    explicit constexpr default_vectors_memory(carver& memory)
        : sums(memory.take<A>(index_t{L::experts} * L::ffn)), counts(memory.take<index_t>(L::experts)) {}
};

template <layer_type L>
constexpr std::size_t default_vectors_bytes() {
    carver count(nullptr);
    default_vectors_memory<L> memory(count);
    return count.used();
}

/// Σ over the rows of expert e of its activations from feature f on, as the down projection reads them.
template <layer_type L, class Drop, class A = typename L::accumulate_type>
void sum_activations(const plan_view<cpu>& plan, const std::uint8_t* mask, const typename L::value_type* pre, A limit,
                     const Drop& drop, int e, index_t f, A* out) {
    using T = typename L::value_type;
    const index_t left = L::ffn - f;
    const vec<A> bound = broadcast<A>(limit);
    vec<A> sum = zeros<A>();
    for (index_t r = plan.offsets[e]; r < plan.offsets[e + 1]; ++r) {
        if (mask && !mask[plan.rows[r] / L::slots]) continue;
        const T* row = pre + r * L::gate_up_rows + f;
        vec<A> a;
        if constexpr (L::is_gated)
            a = activate<L::c.act>(load_first<A>(row, left), load_first<A>(row + L::ffn, left), bound);
        else
            a = activate<L::c.act>(load_first<A>(row, left), bound);
        alignas(64) T rounded[std::size_t{lanes<A>}];
        store(rounded, drop.apply(a, r, f, left));
        sum = add(sum, load<A>(rounded));
    }
    store_first(out, sum, left);
}

template <layer_type L>
void update_default_vectors(context<cpu>& ctx, const output_average& controller, weights<L>& w, const batch<L>& in,
                            tape<L>& saved, const options<L>& o) {
    using A = typename L::accumulate_type;
    constexpr int E = L::experts, F = L::ffn, H = L::width;
    const plan_view<cpu> plan = saved.plan();
    carver arrays(ctx.workspace(default_vectors_bytes<L>()));
    const default_vectors_memory<L> memory(arrays);
    for (int e = 0; e < E; ++e) {
        memory.counts[e] = 0;
        for (index_t r = plan.offsets[e]; r < plan.offsets[e + 1]; ++r)
            memory.counts[e] += !in.mask.data() || in.mask[plan.rows[r] / L::slots] ? 1 : 0;
    }
    const auto drop = dropout_of(o, in.first_token, plan.rows.data(), L::slots);
    constexpr index_t blocks = ceil_div<index_t>(F, lanes<A>);
    for_each_token(ctx, E * blocks, [&](index_t i) {
        const int e = static_cast<int>(i / blocks);
        const index_t f = i % blocks * lanes<A>;
        if (memory.counts[e] > 0)
            sum_activations<L>(plan, in.mask.data(), saved.gate_up().data(), static_cast<A>(o.limit),
                               drop.of_expert(e, 0), e, f, memory.sums + index_t{e} * F + f);
    });
    const A step = static_cast<A>(1 - controller.decay);
    for_each_token(ctx, index_t{E} * H, [&](index_t i) {
        const index_t e = i / H;
        if (memory.counts[e] == 0) return;
        A mean = dot<A>(w.down.data() + i * F, memory.sums + e * F, F) / static_cast<A>(memory.counts[e]);
        if constexpr (L::c.bias) mean += to_accumulate(w.down_bias.data()[i]);
        A& v = w.default_vectors.data()[i];
        v = gatefold::fma(step, mean - v, v);
    });
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
