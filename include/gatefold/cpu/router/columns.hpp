// Softmax over tokens on the CPU: the score of experts that choose tokens in Mesh TensorFlow.
//
//     z[T,N] ── per group of tokens and expert: softmax down the column ──> p[T,N] ── chosen ──> p / experts of the
//     token
//
// A column is one thread's and is summed upwards, so the result depends on the group, not on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/cpu/router/logits.hpp>
#include <gatefold/moe/router_token.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Calls f(first, end) for every group of tokens that experts choose among: as the capacity says; without one, the
/// sequences of the batch, or all tokens where it names none.
template <layer_type L, class F>
void for_each_choice_group(const batch<L>& in, index_t tokens, F&& f) {
    constexpr capacity_config c = L::c.capacity;
    if constexpr (c.shared_by == capacity_group::fixed) {
        for (index_t first = 0; first < tokens; first += c.group_size)
            f(first, first + c.group_size < tokens ? first + c.group_size : tokens);
    } else {
        const bool split =
            in.sequence_starts.data() && (c.rule == capacity_rule::none || c.shared_by == capacity_group::sequence);
        const index_t sequences = split ? in.sequence_starts.extent(0) : 1;
        for (index_t i = 0; i < sequences; ++i) {
            const index_t first = split ? in.sequence_starts[i] : 0;
            const index_t end = i + 1 < sequences ? in.sequence_starts[i + 1] : tokens;
            if (end > first) f(first, end);
        }
    }
}

/// The largest logit of one column, and the sum of its exponentials.
template <layer_type L>
struct column_sum {
    using A = typename L::accumulate_type;
    A m = -real_format<A>::infinity, total = 0;

    column_sum(const view<A, dyn, L::choices>& logits, index_t e, index_t first, index_t end) {
        for (index_t t = first; t < end; ++t) m = logits(t, e) > m ? logits(t, e) : m;
        for (index_t t = first; t < end; ++t) total += softmax_term(logits(t, e), m);
    }
    A share(A z) const { return share_of(softmax_term(z, m), total); }
};

/// Calls body(expert) for every expert, experts spread over the threads.
template <layer_type L, class Body>
void for_each_column(context<cpu>& ctx, Body body) {
    const int parts = L::choices < ctx.threads() ? L::choices : ctx.threads();
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(L::choices, part, parts);
        for (index_t e = mine.begin; e < mine.end; ++e) body(e);
    });
}

/// memory.matrix = p.
template <layer_type L, class Memory>
void score_columns(context<cpu>& ctx, const batch<L>& in, const routing_view<L>& out, const Memory& memory) {
    for_each_choice_group(in, out.logits.extent(0), [&](index_t first, index_t end) {
        for_each_column<L>(ctx, [&](index_t e) {
            const column_sum<L> column(out.logits, e, first, end);
            for (index_t t = first; t < end; ++t) memory.matrix[t * L::choices + e] = column.share(out.logits(t, e));
        });
    });
}

/// Experts that chose the token.
template <layer_type L, class A = typename L::accumulate_type>
A choosers_of(const std::int32_t* ids) {
    int count = 0;
    for (int s = 0; s < L::slots; ++s) count += ids[s] >= 0 ? 1 : 0;
    return static_cast<A>(count);
}

/// The weights of one token from its row of p.
template <layer_type L, class A = typename L::accumulate_type>
void weigh_by_column(const A* p, const std::int32_t* ids, const options<L>& o, A* weights) {
    const A* unscaled = nullptr;
    const A choosers = choosers_of<L>(ids);
    for (int s = 0; s < L::slots; ++s)
        weights[s] = ids[s] < 0 ? A(0) : scale_weight<L>(p[ids[s]] / choosers, o.scale, unscaled, ids[s]);
}

/// Adds to d_logits what the gradient of the weights amounts to: dz = p (dp - Σ over the column of dp p).
template <layer_type L, class A = typename L::accumulate_type>
void columns_backward(context<cpu>& ctx, const batch<L>& in, const options<L>& o, const routing_view<L>& routing,
                      const view<A, dyn, L::slots>& d_weights, const view<A, dyn, L::choices>& d_logits) {
    for_each_choice_group(in, routing.logits.extent(0), [&](index_t first, index_t end) {
        for_each_column<L>(ctx, [&](index_t e) {
            const A* unscaled = nullptr;
            const column_sum<L> column(routing.logits, e, first, end);
            const auto dp = [&](index_t t) {
                const std::int32_t* ids = routing.ids.row(t);
                for (int s = 0; s < L::slots; ++s)
                    if (ids[s] == e)
                        return scale_weight<L>(d_weights(t, s), o.scale, unscaled, ids[s]) / choosers_of<L>(ids);
                return A(0);
            };
            A along = 0;
            for (index_t t = first; t < end; ++t)
                along = gatefold::fma(dp(t), column.share(routing.logits(t, e)), along);
            for (index_t t = first; t < end; ++t) {
                const A z = routing.logits(t, e);
                d_logits(t, e) += gatefold::mul(column.share(z), dp(t) - along);
            }
        });
    });
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
