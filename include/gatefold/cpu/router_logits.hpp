// The logits of all tokens on the CPU.
//
//     x or router_x ── jitter, norm ──> u ── projection ──> raw ── + bias ── transform, noise ──> logits[T,N]
//
// A logit is one chain of fused multiply-adds in ascending h from +0: a function of H alone, whatever the batch.
// Routers that only project read x as it lies; the others work on a few hundred tokens at a time.
#pragma once

#include <cstddef>

#include <gatefold/core/random.hpp>
#include <gatefold/core/workspace.hpp>
#include <gatefold/cpu/rows.hpp>
#include <gatefold/moe/router_noise.hpp>
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

/// The draws of a call.
template <layer_type L>
counter_rng draws_of(const options<L>& o) {
    return {o.seed, o.step, static_cast<int>(o.layer)};
}

/// What a layer's logits need between the input and the last step.
template <layer_type L>
struct logits_traits {
    static constexpr router_config r = L::c.router;
    static constexpr int H = L::hidden, N = L::choices, P = r.projection_width;
    static constexpr bool jitter = has_jitter(L::c);
    static constexpr bool moves_input = r.logits != projection::none && (r.input != router_input::tokens || jitter);
    static constexpr bool two_layer = r.logits == projection::two_layer, cosine = r.logits == projection::cosine,
                          deep = two_layer || cosine;
    static constexpr bool noisy = r.transform == logit_transform::noisy_top_k,
                          normalised = r.transform == logit_transform::normalised;
    static constexpr bool in_chunks = moves_input || deep || noisy || normalised;

    static constexpr index_t chunk(index_t tokens) { return in_chunks && tokens > 256 ? 256 : tokens; }
};

/// Workspace of logits: arrays for one chunk of tokens.
template <layer_type L>
struct logits_memory {
    using A = typename L::accumulate_type;
    using traits = logits_traits<L>;
    std::byte* products;
    A* input;       ///< [chunk, H] what is projected
    A* features;    ///< [chunk, P] what the second layer, or the cosine, reads
    A* norms;       ///< [chunk] lengths of the features before they were brought to length 1
    A* directions;  ///< [N, P] rows of the head, brought to length 1
    A* head_norms;  ///< [N]
    A* deviations;  ///< [chunk, N] x W_n

    constexpr logits_memory(carver& memory, index_t tokens, int threads)
        : products(memory.take<std::byte>(static_cast<index_t>(product_scratch_bytes(threads)))),
          input(memory.take<A>(traits::moves_input ? traits::chunk(tokens) * traits::H : 0)),
          features(memory.take<A>(traits::deep ? traits::chunk(tokens) * traits::P : 0)),
          norms(memory.take<A>(traits::cosine ? traits::chunk(tokens) : 0)),
          directions(memory.take<A>(traits::cosine ? index_t{traits::N} * traits::P : 0)),
          head_norms(memory.take<A>(traits::cosine ? traits::N : 0)),
          deviations(memory.take<A>(traits::noisy ? traits::chunk(tokens) * traits::N : 0)) {}
};

/// ||x||, not below the least length.
template <class A, class T>
A length_of(const T* x, index_t n) {
    return length_floor(gatefold::sqrt(dot<A>(x, x, n)));
}

/// Root of the mean square of one row, as the Gemma norm takes it.
template <class A, class T>
A root_mean_square(const T* x, index_t n) {
    return gatefold::sqrt(dot<A>(x, x, n) / static_cast<A>(n) + static_cast<A>(1e-6));
}

template <class W, class A = typename W::layer_type::accumulate_type>
A temperature_of(const W& w) {
    return temperature_floor<A>(w.router_temperature.data()[0]);
}

/// What the router reads, from token `first` on.
template <layer_type L>
rows_of<typename L::value_type> router_rows(const batch<L>& in, index_t first) {
    const auto& x = in.router_x.data() ? in.router_x : in.x;
    return {x.data() + first * x.row_stride(), x.row_stride()};
}

/// Whether noise disturbs the input in this call.
template <layer_type L>
GATEFOLD_INLINE bool is_disturbed(const options<L>& o) {
    return has_jitter(L::c) && o.training && o.noise > 0;
}

/// v times the noise of one element of the input; unchanged at inference. What experts see too is rounded as they see
/// it.
template <layer_type L, bool Rounds = shares_jitter(L::c), class A = typename L::accumulate_type>
GATEFOLD_INLINE A disturbed(A v, const options<L>& o, const counter_rng& draw, index_t token, int h) {
    if (!is_disturbed<L>(o)) return v;
    return disturbed_by<L::c.router.noise_on, Rounds, typename L::value_type>(v, static_cast<A>(o.noise), draw, token,
                                                                              h, L::hidden);
}

/// Moves the tokens as noise that experts see does: to[t,h], rounded to the storage type.
template <layer_type L>
void disturb_rows(context<cpu>& ctx, const batch<L>& in, const options<L>& o, typename L::value_type* to) {
    const counter_rng draw = draws_of(o);
    for_each_token(ctx, in.x.extent(0), [&](index_t t) {
        for (int h = 0; h < L::hidden; ++h)
            to[t * L::hidden + h] = from_accumulate<typename L::value_type>(
                disturbed<L>(to_accumulate(in.x.row(t)[h]), o, draw, in.first_token + t, h));
    });
}

/// Fills memory.input for a chunk of tokens.
template <class W, layer_type L = typename W::layer_type>
void move_input(context<cpu>& ctx, const W& w, const batch<L>& in, const options<L>& o, index_t first, index_t count,
                const logits_memory<L>& memory) {
    using A = typename L::accumulate_type;
    using traits = logits_traits<L>;
    constexpr int H = L::hidden;
    const rows_of<typename L::value_type> x = router_rows(in, first);
    const counter_rng draw = draws_of(o);
    for_each_token(ctx, count, [&](index_t t) {
        A* u = memory.input + t * H;
        for (int h = 0; h < H; ++h) {
            u[h] = to_accumulate(x.row(t)[h]);
            if constexpr (traits::jitter) u[h] = disturbed<L>(u[h], o, draw, in.first_token + first + t, h);
        }
        if constexpr (traits::r.input == router_input::unit_length) {
            const A length = length_of<A>(u, H);
            for (int h = 0; h < H; ++h) u[h] = u[h] / length;
        } else if constexpr (traits::r.input == router_input::rms_norm) {
            const A root = gatefold::sqrt(static_cast<A>(H)), rms = root_mean_square<A>(u, H);
            for (int h = 0; h < H; ++h)
                u[h] = gatefold::mul(u[h] / rms, to_accumulate(w.router_scale.data()[h])) / root;
        }
    });
}

/// The rows that are projected: those of the batch, or memory.input after move_input.
template <class W, layer_type L = typename W::layer_type>
auto projected_rows(context<cpu>& ctx, const W& w, const batch<L>& in, const options<L>& o, index_t first,
                    index_t count, const logits_memory<L>& memory) {
    if constexpr (logits_traits<L>::moves_input) {
        move_input(ctx, w, in, o, first, count, memory);
        return rows_of<typename L::accumulate_type>{memory.input, L::hidden};
    } else {
        return router_rows(in, first);
    }
}

/// Brings the rows of the head to length 1; once per call.
template <class W, layer_type L = typename W::layer_type>
void prepare_directions(const W& w, const logits_memory<L>& memory) {
    using A = typename L::accumulate_type;
    constexpr int P = L::c.router.projection_width;
    for (int e = 0; e < L::choices; ++e) {
        const auto* head = w.router_head.data() + index_t{e} * P;
        memory.head_norms[e] = length_of<A>(head, P);
        for (int p = 0; p < P; ++p)
            memory.directions[index_t{e} * P + p] = to_accumulate(head[p]) / memory.head_norms[e];
    }
}

/// What the second layer, or the cosine, reads: tanh of the first layer, or its direction.
template <class W, class Rows, layer_type L = typename W::layer_type>
void compute_features(context<cpu>& ctx, const W& w, const Rows& u, index_t count, const logits_memory<L>& memory) {
    using A = typename L::accumulate_type;
    constexpr int H = L::hidden, P = logits_traits<L>::P;
    product_nt(ctx, memory.products, {1, nullptr, count}, u,
               weights_of<typename L::router_type>{w.router_projection.data(), H}, P, H, matrix<A>{memory.features, P});
    for_each_token(ctx, count, [&](index_t t) {
        A* f = memory.features + t * P;
        if constexpr (logits_traits<L>::cosine) memory.norms[t] = length_of<A>(f, P);
        for (int p = 0; p < P; ++p) {
            if constexpr (logits_traits<L>::cosine)
                f[p] = f[p] / memory.norms[t];
            else
                f[p] = gatefold::tanh(f[p]);
        }
    });
}

/// What follows the projection of one token: temperature, bias, rounding where the configuration says so.
template <class W, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
GATEFOLD_INLINE void finish_logits(const W& w, A* z) {
    using T = typename L::value_type;
    using traits = logits_traits<L>;
    for (int e = 0; e < L::choices; ++e) {
        if constexpr (traits::r.logits == projection::none) z[e] = 0;
        if constexpr (traits::cosine) z[e] = z[e] / temperature_of(w);
        if constexpr (traits::r.bias) z[e] += to_accumulate(w.router_bias.data()[e]);
        if constexpr (traits::r.logits_in == precision::storage) z[e] = to_accumulate(from_accumulate<T>(z[e]));
    }
}

/// The projection of a router that is one product, for phases of a region.
template <class W, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
auto product_of_logits(const context<cpu>& ctx, const W& w, const rows_of<typename L::value_type>& x,
                       const view<A, dyn, L::choices>& logits, const logits_memory<L>& memory) {
    using R = typename L::router_type;
    return narrow_product<typename L::value_type, R, A>(ctx.threads(), memory.products, logits.extent(0), x,
                                                        weights_of<R>{w.router.data(), L::hidden}, L::choices,
                                                        L::hidden, matrix<A>{logits.data(), logits.row_stride()});
}

/// Raw logits of a chunk: projection and bias, rounded where the configuration says so.
template <class W, class Rows, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
void project(context<cpu>& ctx, const W& w, const Rows& u, index_t count, A* logits, index_t stride,
             const logits_memory<L>& memory) {
    using R = typename L::router_type;
    using traits = logits_traits<L>;
    constexpr int H = L::hidden, N = L::choices, P = traits::P;
    const matrix<A> to{logits, stride};
    if constexpr (traits::deep) compute_features(ctx, w, u, count, memory);
    if constexpr (traits::r.logits == projection::linear)
        product_nt_narrow(ctx, memory.products, count, u, weights_of<R>{w.router.data(), H}, N, H, to);
    if constexpr (traits::two_layer)
        product_nt_narrow(ctx, memory.products, count, rows_of<A>{memory.features, P},
                          weights_of<R>{w.router_head.data(), P}, N, P, to);
    if constexpr (traits::cosine)
        product_nt_narrow(ctx, memory.products, count, rows_of<A>{memory.features, P},
                          weights_of<A>{memory.directions, P}, N, P, to);
    if constexpr (traits::r.logits == projection::none || traits::cosine || traits::r.bias ||
                  traits::r.logits_in == precision::storage)
        for_each_token(ctx, count, [&](index_t t) { finish_logits(w, logits + t * stride); });
}

/// Mean and standard deviation of one row of logits.
template <class A>
struct row_moments {
    A mean, deviation;
    row_moments(const A* z, int n) {
        mean = lane_sum<A>(n, [&](int i) { return z[i]; }) / static_cast<A>(n);
        const A square = lane_sum<A>(n, [&](int i) { return gatefold::mul(z[i] - mean, z[i] - mean); });
        deviation = gatefold::sqrt(square / static_cast<A>(n));
    }
};

/// The last step: normalisation, and noise in training.
template <class W, class Rows, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
void transform_logits(context<cpu>& ctx, const W& w, const batch<L>& in, const options<L>& o, const Rows& u,
                      index_t first, index_t count, A* logits, index_t stride, const logits_memory<L>& memory,
                      A* deviations) {
    using traits = logits_traits<L>;
    constexpr logit_transform transform = L::c.router.transform;
    constexpr int N = L::choices;
    if constexpr (transform == logit_transform::none) return;
    if constexpr (transform == logit_transform::residual) {
        if (!in.previous_logits.data()) return;
        product_nt(ctx, memory.products, {1, nullptr, count},
                   rows_of<A>{in.previous_logits.row(first), in.previous_logits.row_stride()},
                   weights_of<typename L::router_type>{w.router_residual.data(), N}, N, N, matrix<A>{logits, stride},
                   true);
        return;
    }
    if (transform != logit_transform::normalised && !o.training) return;
    if constexpr (traits::noisy)
        product_nt(ctx, memory.products, {1, nullptr, count}, u,
                   weights_of<typename L::router_type>{w.router_noise.data(), L::hidden}, N, L::hidden,
                   matrix<A>{memory.deviations, N});
    const counter_rng draw = draws_of(o);
    const A size = static_cast<A>(o.noise);
    for_each_token(ctx, count, [&](index_t t) {
        A* z = logits + t * stride;
        const index_t token = in.first_token + first + t;
        if constexpr (traits::normalised) {
            const row_moments<A> m(z, N);
            for (int e = 0; e < N; ++e) z[e] = gatefold::mul(share_of(z[e] - m.mean, m.deviation), size);
        }
        for (int e = 0; e < N; ++e) {
            if constexpr (traits::noisy) {
                const A deviation = noise_deviation(memory.deviations[t * N + e]);
                if (deviations) deviations[(first + t) * N + e] = deviation;
                z[e] = gatefold::fma(draw.template normal<A>(purpose::gaussian, token, e), deviation, z[e]);
            }
            if constexpr (transform == logit_transform::gaussian)
                z[e] =
                    gatefold::fma(draw.template normal<A>(purpose::gaussian, token, e), size / static_cast<A>(N), z[e]);
            if constexpr (transform == logit_transform::gumbel)
                z[e] = gatefold::fma(draw.template gumbel<A>(purpose::gumbel, token, e), size, z[e]);
        }
    });
}

/// Writes the logits as scores and selection see them, and where asked the deviations of learned noise [T, N].
template <class W, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
void compute_logits(context<cpu>& ctx, const W& w, const batch<L>& in, const options<L>& o,
                    const view<A, dyn, L::choices>& logits, const logits_memory<L>& memory, A* deviations) {
    using traits = logits_traits<L>;
    const index_t tokens = in.x.extent(0), chunk = traits::chunk(tokens);
    if constexpr (traits::cosine) prepare_directions(w, memory);
    for (index_t first = 0; first < tokens; first += chunk) {
        const index_t count = first + chunk < tokens ? chunk : tokens - first;
        const auto u = projected_rows(ctx, w, in, o, first, count, memory);
        project(ctx, w, u, count, logits.row(first), logits.row_stride(), memory);
        transform_logits(ctx, w, in, o, u, first, count, logits.row(first), logits.row_stride(), memory, deviations);
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
