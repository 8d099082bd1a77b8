// Soft MoE on the CPU: two softmaxes of one matrix of cosines, four products, and back.
//
// Sums over tokens go upwards inside a product or a column, and a column is one thread's: bits do not depend on the
// number of threads.
#pragma once

#include <cstddef>

#include <gatefold/core/workspace.hpp>
#include <gatefold/cpu/rows.hpp>
#include <gatefold/moe/router_math.hpp>
#include <gatefold/moe/soft.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Calls body(i) for i below n, shared among the threads.
template <class Body>
void for_each_index(context<cpu>& ctx, index_t n, Body body) {
    const int parts = static_cast<int>(n < ctx.threads() ? n : ctx.threads());
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(n, part, parts);
        for (index_t i = mine.begin; i < mine.end; ++i) body(i);
    });
}

/// unit = row / length, the length not below 1e-12. Returns the length.
template <class A, class T>
A to_unit_length(const T* row, index_t n, A* unit) {
    const A norm = gatefold::sqrt(dot<A>(row, row, n)), least = static_cast<A>(1e-12);
    const A length = norm > least ? norm : least;
    for (index_t i = 0; i < n; ++i) unit[i] = to_accumulate(row[i]) / length;
    return length;
}

/// d = the gradient of the row whose unit vector has the gradient d.
template <class A>
void from_unit_length(const A* unit, A length, index_t n, A* d) {
    const A along = length > static_cast<A>(1e-12) ? dot<A>(d, unit, n) : A(0);
    for (index_t i = 0; i < n; ++i) d[i] = (d[i] - gatefold::mul(unit[i], along)) / length;
}

/// dz += p (dp - <p, dp>) for n numbers that lie `stride` apart.
template <class A>
void add_softmax_backward(const A* p, const A* dp, index_t n, index_t stride, A* dz) {
    A along = 0;
    for (index_t i = 0; i < n; ++i) along = gatefold::fma(p[i * stride], dp[i * stride], along);
    for (index_t i = 0; i < n; ++i)
        dz[i * stride] = gatefold::fma(p[i * stride], dp[i * stride] - along, dz[i * stride]);
}

/// p = softmax of scale · cosines, for n numbers that lie `stride` apart.
template <class A>
void soft_probabilities(const A* cosines, A scale, index_t n, index_t stride, A* p) {
    A m = -real_format<A>::infinity, total = 0;
    const auto z = [&](index_t i) { return gatefold::mul(scale, cosines[i * stride]); };
    for (index_t i = 0; i < n; ++i) m = z(i) > m ? z(i) : m;
    for (index_t i = 0; i < n; ++i) total += softmax_term(z(i), m);
    for (index_t i = 0; i < n; ++i) p[i * stride] = share_of(softmax_term(z(i), m), total);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <class T>
struct soft_impl<cpu, T> {
    template <int H, int S>
    static void dispatch(context<cpu>& ctx, const soft_router<T, H, S>& r, const view<const T, dyn, H>& x,
                         soft_tape<T, H, S>& saved, const view<T, dyn, H>& slots) {
        using namespace on_cpu;
        using A = accumulate_t<T>;
        const index_t tokens = x.extent(0);
        std::byte* scratch = ctx.workspace(product_scratch_bytes(ctx.threads()));
        saved.tokens = tokens;
        A* cosines = saved.cosines.data();
        for_each_index(ctx, S, [&](index_t s) {
            saved.direction_lengths.data()[s] =
                to_unit_length(r.directions.data() + s * H, H, saved.unit_directions.data() + s * H);
        });
        for_each_index(ctx, tokens, [&](index_t t) {
            saved.lengths.data()[t] = to_unit_length(x.row(t), H, saved.unit_tokens.data() + t * H);
        });
        product_nt(ctx, scratch, {1, nullptr, tokens}, rows_of<A>{saved.unit_tokens.data(), H},
                   weights_of<A>{saved.unit_directions.data(), H}, S, H, matrix<A>{cosines, S});
        const A scale = r.scale.data()[0];
        for_each_index(ctx, tokens, [&](index_t t) {
            soft_probabilities(cosines + t * S, scale, S, 1, saved.combine.data() + t * S);
        });
        for_each_index(
            ctx, S, [&](index_t s) { soft_probabilities(cosines + s, scale, tokens, S, saved.dispatch.data() + s); });
        product_tn(ctx, scratch, {1, nullptr, tokens}, rows_of<A>{saved.dispatch.data(), S},
                   rows_of<T>{x.data(), x.row_stride()}, S, H, matrix<T>{slots.data(), slots.row_stride()}, false);
    }

    template <int H, int S>
    static void combine(context<cpu>& ctx, const soft_tape<T, H, S>& saved, const view<const T, dyn, H>& returned,
                        const view<T, dyn, H>& y) {
        using namespace on_cpu;
        std::byte* scratch = ctx.workspace(product_scratch_bytes(ctx.threads()));
        product_nn(ctx, scratch, {1, nullptr, saved.tokens}, rows_of<accumulate_t<T>>{saved.combine.data(), S},
                   weights_of<T>{returned.data(), returned.row_stride()}, H, S, matrix<T>{y.data(), y.row_stride()});
    }

    template <int H, int S>
    static void combine_backward(context<cpu>& ctx, soft_tape<T, H, S>& saved, const view<const T, dyn, H>& returned,
                                 const view<const T, dyn, H>& dy, const view<T, dyn, H>& d_returned) {
        using namespace on_cpu;
        using A = accumulate_t<T>;
        const index_t tokens = saved.tokens;
        const auto layout = [&](carver& memory, std::byte*& scratch, A*& d) {
            scratch = memory.take<std::byte>(static_cast<index_t>(product_scratch_bytes(ctx.threads())));
            d = memory.take<A>(tokens * S);
        };
        std::byte* scratch = nullptr;
        A* d_combine = nullptr;
        carver count(nullptr);
        layout(count, scratch, d_combine);
        carver memory(ctx.workspace(count.used()));
        layout(memory, scratch, d_combine);
        const grouping all{1, nullptr, tokens};
        const rows_of<T> d{dy.data(), dy.row_stride()};
        product_tn(ctx, scratch, all, rows_of<A>{saved.combine.data(), S}, d, S, H,
                   matrix<T>{d_returned.data(), d_returned.row_stride()}, false);
        product_nt(ctx, scratch, all, d, weights_of<T>{returned.data(), returned.row_stride()}, S, H,
                   matrix<A>{d_combine, S});
        for_each_index(ctx, tokens, [&](index_t t) {
            A* dz = saved.logit_gradients.data() + t * S;
            for (int s = 0; s < S; ++s) dz[s] = 0;
            add_softmax_backward(saved.combine.data() + t * S, d_combine + t * S, S, 1, dz);
        });
    }

    template <int H, int S>
    static void dispatch_backward(context<cpu>& ctx, const soft_router<T, H, S>& r, const view<const T, dyn, H>& x,
                                  soft_tape<T, H, S>& saved, const view<const T, dyn, H>& d_slots,
                                  const view<T, dyn, H>& dx, soft_router<accumulate_t<T>, H, S>& g, bool accumulate) {
        using namespace on_cpu;
        using A = accumulate_t<T>;
        const index_t tokens = saved.tokens;
        struct arrays {
            std::byte* scratch;
            A *d_dispatch, *d_unit, *through, *d_directions;
        };
        const auto layout = [&](carver& memory) {
            arrays a;
            a.scratch = memory.take<std::byte>(static_cast<index_t>(product_scratch_bytes(ctx.threads())));
            a.d_dispatch = memory.take<A>(tokens * S);
            a.d_unit = memory.take<A>(tokens * H);
            a.through = memory.take<A>(tokens * H);
            a.d_directions = memory.take<A>(index_t{S} * H);
            return a;
        };
        carver count(nullptr);
        layout(count);
        carver memory(ctx.workspace(count.used()));
        const arrays a = layout(memory);
        const grouping all{1, nullptr, tokens};
        A* dz = saved.logit_gradients.data();
        product_nt(ctx, a.scratch, all, rows_of<T>{x.data(), x.row_stride()},
                   weights_of<T>{d_slots.data(), d_slots.row_stride()}, S, H, matrix<A>{a.d_dispatch, S});
        for_each_index(ctx, S, [&](index_t s) {
            add_softmax_backward(saved.dispatch.data() + s, a.d_dispatch + s, tokens, S, dz + s);
        });
        // Through the logits: z = scale · cosine.
        A d_scale = 0;
        const A scale = r.scale.data()[0];
        for (index_t i = 0; i < tokens * S; ++i) {
            d_scale = gatefold::fma(dz[i], saved.cosines.data()[i], d_scale);
            a.d_dispatch[i] = gatefold::mul(dz[i], scale);
        }
        const rows_of<A> d_cosines{a.d_dispatch, S};
        product_nn(ctx, a.scratch, all, d_cosines, weights_of<A>{saved.unit_directions.data(), H}, H, S,
                   matrix<A>{a.d_unit, H});
        product_tn(ctx, a.scratch, all, d_cosines, rows_of<A>{saved.unit_tokens.data(), H}, S, H,
                   matrix<A>{a.d_directions, H}, false);
        product_nn(ctx, a.scratch, all, rows_of<A>{saved.dispatch.data(), S},
                   weights_of<T>{d_slots.data(), d_slots.row_stride()}, H, S, matrix<A>{a.through, H});
        for_each_index(ctx, tokens, [&](index_t t) {
            A* d = a.d_unit + t * H;
            from_unit_length(saved.unit_tokens.data() + t * H, saved.lengths.data()[t], H, d);
            for (int h = 0; h < H; ++h) dx.row(t)[h] = from_accumulate<T>(a.through[t * H + h] + d[h]);
        });
        for_each_index(ctx, S, [&](index_t s) {
            A *d = a.d_directions + s * H, *to = g.directions.data() + s * H;
            from_unit_length(saved.unit_directions.data() + s * H, saved.direction_lengths.data()[s], H, d);
            for (int h = 0; h < H; ++h) to[h] = (accumulate ? to[h] : A(0)) + d[h];
        });
        g.scale.data()[0] = (accumulate ? g.scale.data()[0] : A(0)) + d_scale;
    }
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER
