// The logits of all tokens on the CPU, and the way back to the router's parameters and its input.
//
//     x or router_x ── · router ──> + bias ──> logits[T,N]          dz[T,N] ──> d router, d bias, dx
//
// A logit is one chain of fused multiply-adds in ascending h from +0: a function of H alone, whatever the batch. Sums
// over tokens go upwards, so that gradients do not depend on the number of threads.
#pragma once

#include <cstddef>

#include <gatefold/core/workspace.hpp>
#include <gatefold/cpu/rows.hpp>
#include <gatefold/moe/router_token.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Parts for work on whole tokens: few tokens are not worth a second thread.
inline int token_parts(const context<cpu>& ctx, index_t tokens) {
    const index_t most = ceil_div<index_t>(tokens, 16);
    return most < ctx.threads() ? static_cast<int>(most < 1 ? 1 : most) : ctx.threads();
}

/// Calls body(t) for every token.
template <class Body>
void for_each_token(context<cpu>& ctx, index_t tokens, Body body) {
    const int parts = token_parts(ctx, tokens);
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(tokens, part, parts);
        for (index_t t = mine.begin; t < mine.end; ++t) body(t);
    });
}

/// What the router reads.
template <layer_type L>
rows_of<typename L::value_type> router_rows(const batch<L>& in) {
    const auto& x = in.router_x.data() ? in.router_x : in.x;
    return {x.data(), x.row_stride()};
}

/// Workspace of logits and of their backward.
template <layer_type L>
struct logits_memory {
    std::byte* products;

    constexpr logits_memory(carver& memory, index_t, int threads)
        : products(memory.take<std::byte>(static_cast<index_t>(product_scratch_bytes(threads)))) {}
};

/// Writes the logits as scores and selection see them.
template <class W, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
void compute_logits(context<cpu>& ctx, const W& w, const batch<L>& in, const options<L>&,
                    const view<A, dyn, L::choices>& logits, const logits_memory<L>& memory) {
    using T = typename L::value_type;
    using R = typename L::router_type;
    constexpr router_config r = L::c.router;
    const index_t tokens = in.x.extent(0);
    product_nt(ctx, memory.products, {1, nullptr, tokens}, router_rows(in), weights_of<R>{w.router.data(), L::hidden},
               L::choices, L::hidden, matrix<A>{logits.data(), logits.row_stride()});
    if constexpr (r.bias || r.logits_in == precision::storage)
        for_each_token(ctx, tokens, [&](index_t t) {
            A* z = logits.row(t);
            for (int e = 0; e < L::choices; ++e) {
                if constexpr (r.bias) z[e] += to_accumulate(w.router_bias.data()[e]);
                if constexpr (r.logits_in == precision::storage) z[e] = to_accumulate(from_accumulate<T>(z[e]));
            }
        });
}

/// Gradients of the router's parameters for the gradient of the logits; dx gains the router's part.
template <class W, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
void logits_backward(context<cpu>& ctx, const W& w, const batch<L>& in, const options<L>&,
                     const view<A, dyn, L::choices>& d_logits, const view<A, dyn, L::hidden>& dx, gradients<L>& g,
                     bool accumulate, const logits_memory<L>& memory) {
    using R = typename L::router_type;
    constexpr router_config r = L::c.router;
    const index_t tokens = in.x.extent(0);
    const rows_of<A> dz{d_logits.data(), d_logits.row_stride()};
    const grouping all{1, nullptr, tokens};
    if constexpr (r.bias) column_sums(ctx, all, dz, L::choices, g.router_bias.data(), accumulate);
    product_tn(ctx, memory.products, all, dz, router_rows(in), L::choices, L::hidden,
               matrix<A>{g.router.data(), L::hidden}, accumulate);
    product_nn(ctx, memory.products, all, dz, weights_of<R>{w.router.data(), L::hidden}, L::hidden, L::choices,
               matrix<A>{dx.data(), dx.row_stride()}, true);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
