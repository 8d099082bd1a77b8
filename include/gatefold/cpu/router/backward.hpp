// From the gradient of the logits to the router's parameters and its input, on the CPU: cpu/router/logits.hpp in
// reverse.
//
//     dz[T,N] ── transform ──> d raw ── projection ──> d router, d bias, du ── norm, jitter ──> dx
//
// What forward did not keep is computed again, a chunk of tokens at a time. Sums over tokens go upwards, through all
// chunks in one chain, so that gradients depend neither on chunks nor on the number of threads.
#pragma once

#include <cstddef>

#include <gatefold/cpu/router/logits.hpp>
#include <gatefold/moe/weights.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Workspace of the way back.
template <layer_type L>
struct logits_backward_memory {
    using A = typename L::accumulate_type;
    using traits = logits_traits<L>;
    logits_memory<L> forward;
    A* d_raw;          ///< [chunk, N] by the raw logits, where the transform changes them
    A* d_deviations;   ///< [chunk, N]
    A* d_features;     ///< [chunk, P]
    A* d_directions;   ///< [N, P]
    A* d_input;        ///< [chunk, H]
    A* d_temperature;  ///< [chunk] a token's part

    constexpr logits_backward_memory(carver& memory, index_t tokens, int threads)
        : forward(memory, tokens, threads),
          d_raw(memory.take<A>(traits::normalised || traits::cosine ? traits::chunk(tokens) * traits::N : 0)),
          d_deviations(memory.take<A>(traits::noisy ? traits::chunk(tokens) * traits::N : 0)),
          d_features(memory.take<A>(traits::deep ? traits::chunk(tokens) * traits::P : 0)),
          d_directions(memory.take<A>(traits::cosine ? index_t{traits::N} * traits::P : 0)),
          d_input(memory.take<A>(traits::moves_input ? traits::chunk(tokens) * traits::H : 0)),
          d_temperature(memory.take<A>(traits::cosine ? traits::chunk(tokens) : 0)) {}
};

/// d raw of a token for normalised logits: z = size (raw - mean) / deviation.
template <class A>
void normalised_backward(const A* raw, const A* dz, A size, int n, A* d_raw) {
    const row_moments<A> m(raw, n);
    const auto unit = [&](int i) { return share_of(raw[i] - m.mean, m.deviation); };
    const A mean = lane_sum<A>(n, [&](int i) { return dz[i]; }) / static_cast<A>(n);
    const A along = lane_sum<A>(n, [&](int i) { return gatefold::mul(dz[i], unit(i)); }) / static_cast<A>(n);
    const A factor = share_of(size, m.deviation);
    for (int i = 0; i < n; ++i) d_raw[i] = gatefold::mul(factor, dz[i] - mean - gatefold::mul(unit(i), along));
}

/// dx[h] += the gradient of one row of the router's input; du becomes the row's part of the gradient of router_scale.
template <class W, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
void input_row_backward(const W& w, const options<L>& o, const counter_rng& draw, index_t token,
                        const typename L::value_type* x, A* du, A* dx) {
    using traits = logits_traits<L>;
    constexpr int H = L::hidden;
    const auto jittered = [&](int h) {
        A u = to_accumulate(x[h]);
        if constexpr (traits::jitter) u = disturbed<L>(u, o, draw, token, h);
        return u;
    };
    const auto add = [&](int h, A d) {
        if constexpr (traits::jitter) d = disturbed<L, false>(d, o, draw, token, h);
        dx[h] += d;
    };
    const auto sum = [&](auto term) {
        A total = 0;
        for (int h = 0; h < H; ++h) total = gatefold::fma(term(h), jittered(h), total);
        return total;
    };
    if constexpr (traits::r.input == router_input::tokens) {
        if constexpr (traits::jitter) disturb_row<L, false>(du, o, draw, token, du);
        map<A>(
            H, [](vec<A> a, vec<A> b) { return a + b; }, dx, dx, du);
    } else if constexpr (traits::r.input == router_input::unit_length) {
        A length = gatefold::sqrt(sum(jittered));
        const bool clamped = !(length > static_cast<A>(least_length));
        length = clamped ? static_cast<A>(least_length) : length;
        const A along = clamped ? A(0) : sum([&](int h) { return du[h]; }) / length / length;
        for (int h = 0; h < H; ++h) add(h, (du[h] - gatefold::mul(jittered(h), along)) / length);
    } else {
        const A root = gatefold::sqrt(static_cast<A>(H));
        const A rms = gatefold::sqrt(sum(jittered) / static_cast<A>(H) + static_cast<A>(1e-6));
        const auto scaled = [&](int h) { return gatefold::mul(du[h], to_accumulate(w.router_scale.data()[h])) / root; };
        const A along = sum(scaled) / static_cast<A>(H) / rms / rms;
        for (int h = 0; h < H; ++h) {
            add(h, (scaled(h) - gatefold::mul(jittered(h), along)) / rms);
            du[h] = gatefold::mul(du[h], jittered(h) / rms) / root;
        }
    }
}

/// The projection's part: gradients of its parameters, and du = d raw · projection, added to `to` where `adds`.
template <class W, class Rows, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
void projection_backward(context<cpu>& ctx, const W& w, const Rows& u, index_t count, const rows_of<A>& d_raw,
                         matrix<A> to, bool adds, gradients<L>& g, bool accumulate,
                         const logits_backward_memory<L>& memory) {
    using R = typename L::router_type;
    using traits = logits_traits<L>;
    constexpr router_config r = L::c.router;
    constexpr int H = L::hidden, N = L::choices, P = traits::P;
    const grouping all{1, nullptr, count};
    std::byte* products = memory.forward.products;
    if constexpr (r.logits == projection::linear) {
        product_tn(ctx, products, all, d_raw, u, N, H, matrix<A>{g.router.data(), H}, accumulate);
        product_nn(ctx, products, all, d_raw, weights_of<R>{w.router.data(), H}, H, N, to, adds);
    } else if constexpr (traits::deep) {
        A* features = memory.forward.features;
        const rows_of<A> d_features{memory.d_features, P};
        if constexpr (traits::two_layer) {
            product_tn(ctx, products, all, d_raw, rows_of<A>{features, P}, N, P, matrix<A>{g.router_head.data(), P},
                       accumulate);
            product_nn(ctx, products, all, d_raw, weights_of<R>{w.router_head.data(), P}, P, N,
                       matrix<A>{memory.d_features, P});
            for (index_t i = 0; i < count * P; ++i)
                memory.d_features[i] =
                    gatefold::mul(memory.d_features[i], A(1) - gatefold::mul(features[i], features[i]));
        } else {
            // d_raw was divided by the temperature: it is the gradient of the cosines.
            product_tn(ctx, products, all, d_raw, rows_of<A>{features, P}, N, P, matrix<A>{memory.d_directions, P},
                       true);
            product_nn(ctx, products, all, d_raw, weights_of<A>{memory.forward.directions, P}, P, N,
                       matrix<A>{memory.d_features, P});
            for_each_token(ctx, count, [&](index_t t) {
                A* d = memory.d_features + t * P;
                const A* unit = features + t * P;
                const A along = dot<A>(d, unit, P);
                for (int p = 0; p < P; ++p) d[p] = (d[p] - gatefold::mul(unit[p], along)) / memory.forward.norms[t];
            });
        }
        product_tn(ctx, products, all, d_features, u, P, H, matrix<A>{g.router_projection.data(), H}, accumulate);
        product_nn(ctx, products, all, d_features, weights_of<R>{w.router_projection.data(), H}, H, P, to, adds);
    }
}

/// The gradient of the raw logits of a chunk from that of the final ones, and of what the transform learns.
template <class W, class Rows, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
rows_of<A> transform_backward(context<cpu>& ctx, const W& w, const batch<L>& in, const options<L>& o, const Rows& u,
                              index_t first, index_t count, const rows_of<A>& dz, matrix<A> to, bool& adds,
                              gradients<L>& g, bool accumulate, const logits_backward_memory<L>& memory,
                              const A* d_deviations) {
    using traits = logits_traits<L>;
    constexpr int H = L::hidden, N = L::choices;
    const grouping all{1, nullptr, count};
    const logits_memory<L>& forward = memory.forward;
    if constexpr (traits::noisy) {
        const counter_rng draw = draws_of(o);
        const weights_of<typename L::router_type> noise{w.router_noise.data(), H};
        product_nt(ctx, forward.products, all, u, noise, N, H, matrix<A>{forward.deviations, N});
        for_each_token(ctx, count, [&](index_t t) {
            for (int e = 0; e < N; ++e) {
                // At inference there is no noise, and its projection gets zeros.
                const A n =
                    o.training ? draw.template normal<A>(purpose::gaussian, in.first_token + first + t, e) : A(0);
                const A extra = d_deviations ? d_deviations[(first + t) * N + e] : A(0);
                memory.d_deviations[t * N + e] = gatefold::mul(gatefold::fma(dz.row(t)[e], n, extra),
                                                               gatefold::sigmoid(forward.deviations[t * N + e]));
            }
        });
        const rows_of<A> d{memory.d_deviations, N};
        product_tn(ctx, forward.products, all, d, u, N, H, matrix<A>{g.router_noise.data(), H}, accumulate);
        product_nn(ctx, forward.products, all, d, noise, H, N, to, adds);
        adds = true;
    }
    if constexpr (traits::r.transform == logit_transform::residual) {
        using R = typename L::router_type;
        const bool has = in.previous_logits.data() != nullptr;
        const rows_of<A> below{has ? in.previous_logits.row(first) : nullptr, in.previous_logits.row_stride()};
        const grouping rows{1, nullptr, has ? count : 0};
        product_tn(ctx, forward.products, rows, dz, below, N, N, matrix<A>{g.router_residual.data(), N}, accumulate);
        if (has && in.previous_logit_gradients.data())
            product_nn(ctx, forward.products, all, dz, weights_of<R>{w.router_residual.data(), N}, N, N,
                       matrix<A>{in.previous_logit_gradients.row(first), in.previous_logit_gradients.row_stride()},
                       true);
    }
    if constexpr (traits::normalised || traits::cosine)
        project(ctx, w, u, count, memory.d_raw, N, forward);
    else if constexpr (traits::deep)
        compute_features(ctx, w, u, count, forward);
    if constexpr (traits::normalised || traits::cosine) {
        for_each_token(ctx, count, [&](index_t t) {
            A* d_raw = memory.d_raw + t * N;
            A raw[std::size_t{N}];
            for (int e = 0; e < N; ++e) raw[e] = d_raw[e];
            for (int e = 0; e < N; ++e) d_raw[e] = dz.row(t)[e];
            if constexpr (traits::normalised) normalised_backward(raw, dz.row(t), static_cast<A>(o.noise), N, d_raw);
            if constexpr (traits::cosine) {
                const A temperature = temperature_of(w);
                const A along = lane_sum<A>(N, [&](int e) {
                    A z = raw[e];
                    if constexpr (L::c.router.bias) z = z - to_accumulate(w.router_bias.data()[e]);
                    return gatefold::mul(d_raw[e], z);
                });
                memory.d_temperature[t] = -along / temperature;
            }
        });
        return {memory.d_raw, N};
    } else {
        return dz;
    }
}

/// Gradients of the router's parameters for the gradient of the logits, and where losses have one that of the
/// deviations of learned noise [T, N]; dx gains the router's part.
template <class W, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
void logits_backward(context<cpu>& ctx, const W& w, const batch<L>& in, const options<L>& o,
                     const view<A, dyn, L::choices>& d_logits, const view<A, dyn, L::hidden>& dx, gradients<L>& g,
                     bool accumulate, const logits_backward_memory<L>& memory, const A* d_deviations) {
    using traits = logits_traits<L>;
    constexpr int H = L::hidden, N = L::choices, P = traits::P;
    const index_t tokens = in.x.extent(0), chunk = traits::chunk(tokens);
    if constexpr (traits::cosine) {
        prepare_directions(w, memory.forward);
        for (index_t i = 0; i < index_t{N} * P; ++i) memory.d_directions[i] = 0;
    }
    A d_temperature = 0;
    // Without tokens the gradients are still written: as zeros.
    for (index_t first = 0; first == 0 || first<tokens; first += chunk> 0 ? chunk : 1) {
        const index_t count = first + chunk < tokens ? chunk : tokens - first;
        const bool follows = accumulate || first > 0;
        const rows_of<A> dz{d_logits.row(first), d_logits.row_stride()};
        // Where the input was moved, its gradient is moved back from a buffer; else dx takes it as it comes.
        const matrix<A> to =
            traits::moves_input ? matrix<A>{memory.d_input, H} : matrix<A>{dx.row(first), dx.row_stride()};
        bool adds = !traits::moves_input;
        const auto u = projected_rows(ctx, w, in, o, first, count, memory.forward);
        const rows_of<A> d_raw =
            transform_backward(ctx, w, in, o, u, first, count, dz, to, adds, g, follows, memory, d_deviations);
        if constexpr (L::c.router.bias) column_sums(ctx, {1, nullptr, count}, d_raw, N, g.router_bias.data(), follows);
        if constexpr (traits::cosine) {
            for (index_t t = 0; t < count; ++t) d_temperature += memory.d_temperature[t];
            for (index_t i = 0; i < count * N; ++i) memory.d_raw[i] = memory.d_raw[i] / temperature_of(w);
        }
        projection_backward(ctx, w, u, count, d_raw, to, adds, g, follows, memory);
        if constexpr (traits::moves_input) {
            const counter_rng draw = draws_of(o);
            const rows_of<typename L::value_type> x = router_rows(in, first);
            for_each_token(ctx, count, [&](index_t t) {
                input_row_backward(w, o, draw, in.first_token + first + t, x.row(t), memory.d_input + t * H,
                                   dx.row(first + t));
            });
            if constexpr (traits::r.input == router_input::rms_norm)
                column_sums(ctx, {1, nullptr, count}, rows_of<A>{memory.d_input, H}, H, g.router_scale.data(), follows);
        }
    }
    if constexpr (traits::cosine) {
        const A given = w.router_temperature.data()[0];
        A& temperature = g.router_temperature.data()[0];
        temperature =
            (accumulate ? temperature : A(0)) + (given < static_cast<A>(least_temperature) ? A(0) : d_temperature);
        for (int e = 0; e < N; ++e) {
            const A* unit = memory.forward.directions + index_t{e} * P;
            const A* d = memory.d_directions + index_t{e} * P;
            A* head = g.router_head.data() + index_t{e} * P;
            const A along = dot<A>(d, unit, P);
            for (int p = 0; p < P; ++p)
                head[p] = (accumulate ? head[p] : A(0)) +
                          (d[p] - gatefold::mul(unit[p], along)) / memory.forward.head_norms[e];
        }
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
