// The estimators that learn from all experts on the CPU: backward runs the experts that a token did not choose too, or
// takes a vector for what each of them returns.
//
//     x ── every expert ──> o[E,T] ── <dy, o> ──> gradient of the scores that no weight came from ──> dz
//                  default vectors ── <dy, v> ──┘
//
// Experts run over a few dozen tokens at a time, so that the outputs of all of them fit beside the rest.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/cpu/forward.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Workspace of all_experts_backward and default_vectors_backward.
template <layer_type L>
struct all_experts_memory {
    using A = typename L::accumulate_type;
    static constexpr bool runs = !L::is_dense && L::c.router.learns_from == estimator::all_experts;
    static constexpr bool used = runs || (!L::is_dense && L::c.router.learns_from == estimator::default_vectors);
    static constexpr index_t most = 32;
    static constexpr index_t chunk(index_t tokens) { return !runs ? 0 : tokens < most ? tokens : most; }

    std::int32_t *offsets, *tokens_of_rows;
    A *outputs, *d_scores;
    std::byte* experts;

    constexpr all_experts_memory(carver& memory, index_t tokens, int threads)
        : offsets(memory.take<std::int32_t>(runs ? L::experts + 1 : 0)),
          tokens_of_rows(memory.take<std::int32_t>(L::experts * chunk(tokens))),
          outputs(memory.take<A>(L::experts * chunk(tokens) * L::width)),
          d_scores(memory.take<A>(used ? tokens * L::choices : 0)),
          experts(memory.take<std::byte>(
              runs ? static_cast<index_t>(expert_scratch_bytes<routed_expert<L>>(threads, L::experts * chunk(tokens)))
                   : 0)) {}
};

/// The gradient of one token's logits for that of the scores of experts it did not choose.
template <layer_type L, class A = typename L::accumulate_type>
void other_scores_backward(const A* z, const A* d, A* dz) {
    constexpr score from = L::c.router.from;
    constexpr int N = L::choices;
    if constexpr (from == score::softmax) {
        const row_softmax<A> softmax(z, N);
        const vec<A> m = broadcast<A>(softmax.m), total = broadcast<A>(softmax.total);
        const auto share = [&](vec<A> logits) { return softmax_terms(logits, m) / total; };
        const vec<A> along = broadcast<A>(
            row_sum<A>(N, [&](int i) { return mul(share(load_logits(z, i, N)), load_first<A>(d + i, N - i)); }));
        map<A>(
            N, [&](vec<A> to, vec<A> logits, vec<A> v) { return to + mul(share(logits), v - along); }, dz, dz, z, d);
    } else {
        for (int i = 0; i < N; ++i) dz[i] += gatefold::mul(d[i], score_slope<from>(z[i]));
    }
}

/// Adds to the d_logits of token t what the experts that it did not choose contribute; output(e) is the row that e
/// returns, or is taken to return, for the token.
template <layer_type L, class Output, class A = typename L::accumulate_type>
void others_backward(const routing_view<L>& routing, index_t t, const typename L::value_type* dy, A scale, A* d,
                     A* d_logits, Output output) {
    const std::int32_t* ids = routing.ids.row(t);
    const A* z = routing.logits.row(t);
    if (row_undecided(z, L::choices)) return;
    for (int e = 0; e < L::experts; ++e) {
        bool chosen = false;
        for (int s = 0; s < L::slots; ++s) chosen = chosen || ids[s] == e;
        d[e] = chosen ? A(0) : gatefold::mul(dot<A>(dy, output(e), L::hidden), scale);
    }
    other_scores_backward<L>(z, d, d_logits);
}

/// Adds to d_logits what the experts that were not chosen contribute; `read` is what routed experts read.
template <class W, layer_type L = typename W::layer_type>
void all_experts_backward(context<cpu>& ctx, const W& w, const batch<L>& read, const routing_view<L>& routing,
                          const view<const typename L::value_type, dyn, L::hidden>& dy, const options<L>& o,
                          const view<typename L::accumulate_type, dyn, L::choices>& d_logits,
                          const all_experts_memory<L>& memory) {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    constexpr int E = L::experts, H = L::hidden;
    const index_t tokens = read.x.extent(0), most = all_experts_memory<L>::most;
    for (index_t first = 0; first < tokens; first += most) {
        const index_t count = first + most < tokens ? most : tokens - first;
        for (int e = 0; e <= E; ++e) memory.offsets[e] = static_cast<std::int32_t>(e * count);
        for (index_t r = 0; r < E * count; ++r) memory.tokens_of_rows[r] = static_cast<std::int32_t>(first + r % count);
        const expert_input<T> input{{E, memory.offsets, 0},
                                    {read.x.data(), read.x.row_stride(), memory.tokens_of_rows, 1}};
        run_routed<L>(ctx, memory.experts, input, w, o, kept_activations<T>{}, rows_into<A>{memory.outputs, H},
                      dropout_of(o, read.first_token, memory.tokens_of_rows, 1));
        for_each_token(ctx, count, [&](index_t t) {
            others_backward<L>(routing, first + t, dy.row(first + t), static_cast<A>(o.scale),
                               memory.d_scores + (first + t) * E, d_logits.row(first + t),
                               [&](int e) { return memory.outputs + (e * count + t) * H; });
        });
    }
}

/// The same with the layer's default vectors for what the experts that were not chosen return.
template <class W, layer_type L = typename W::layer_type>
void default_vectors_backward(context<cpu>& ctx, const W& w, const routing_view<L>& routing,
                              const view<const typename L::value_type, dyn, L::hidden>& dy, const options<L>& o,
                              const view<typename L::accumulate_type, dyn, L::choices>& d_logits,
                              const all_experts_memory<L>& memory) {
    using A = typename L::accumulate_type;
    for_each_token(ctx, dy.extent(0), [&](index_t t) {
        others_backward<L>(routing, t, dy.row(t), static_cast<A>(o.scale), memory.d_scores + t * L::experts,
                           d_logits.row(t), [&](int e) { return w.default_vectors.data() + index_t{e} * L::hidden; });
    });
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
