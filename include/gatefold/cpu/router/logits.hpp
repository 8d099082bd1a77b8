// The logits of all tokens on the CPU.
//
//     x or router_x ── jitter, norm ──> u ── projection ──> raw ── + bias ── transform, noise ──> logits[T,N]
//
// A logit is one chain of fused multiply-adds in ascending h from +0: a function of H alone, whatever the batch.
// Routers that only project read x as it lies; the others work on a few hundred tokens at a time.
#pragma once

#include <cstddef>
#include <type_traits>

#include <gatefold/core/random.hpp>
#include <gatefold/core/workspace.hpp>
#include <gatefold/cpu/draws.hpp>
#include <gatefold/cpu/router/row.hpp>
#include <gatefold/cpu/rows.hpp>
#include <gatefold/moe/router_noise.hpp>
#include <gatefold/ops/rows.hpp>

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
    static constexpr bool rounds =
        r.logits_in == precision::storage && !std::is_same_v<typename L::value_type, typename L::accumulate_type>;
    /// Whether anything follows the projection.
    static constexpr bool finishes = r.logits == projection::none || cosine || r.bias || rounds;

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

/// The same for a row: to[h] = disturbed(from[h]); `to` may be `from`.
template <layer_type L, bool Rounds = shares_jitter(L::c), class From, class To>
GATEFOLD_NOINLINE void disturb_row(const From* from, const options<L>& o, const counter_rng& draw, index_t token,
                                   To* to) {
    using A = typename L::accumulate_type;
    using N = number<vec<A>>;
    using rounded = std::conditional_t<Rounds, typename L::value_type, A>;
    constexpr int H = L::hidden;
    constexpr input_noise kind = L::c.router.noise_on;
    if (!is_disturbed<L>(o))
        return map<A>(
            H, [](vec<A> v) { return v; }, to, from);
    const auto size = static_cast<A>(o.noise);
    token_draws<A> draws(draw, kind == input_noise::dropout ? purpose::dropout : purpose::input_jitter, token);
    [[maybe_unused]] token_draws<A> again(draw, purpose::input_jitter, token);
    for (int h = 0; h < H; h += lanes<A>) {
        vec<A> v = load_first<A>(from + h, H - h);
        if constexpr (kind == input_noise::dropout) {
            v = N::select(draws.uniform_from_zero(h) < broadcast<A>(size), zeros<A>(),
                          N::divide(v, broadcast<A>(A(1) - size)));
        } else {
            v = rounded_to<rounded>(mul(v, draws.jitter(h, size)));
            if constexpr (kind == input_noise::shared_jitter_twice)
                v = rounded_to<rounded>(mul(v, again.jitter(H + h, size)));
        }
        store_first(to + h, v, H - h);
    }
}

/// Moves the tokens as noise that experts see does: to[t,h], rounded to the storage type.
template <layer_type L>
void disturb_rows(context<cpu>& ctx, const batch<L>& in, const options<L>& o, typename L::value_type* to) {
    const counter_rng draw = draws_of(o);
    for_each_token(ctx, in.x.extent(0),
                   [&](index_t t) { disturb_row<L>(in.x.row(t), o, draw, in.first_token + t, to + t * L::hidden); });
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
        if constexpr (traits::jitter)
            disturb_row<L>(x.row(t), o, draw, in.first_token + first + t, u);
        else
            map<A>(
                H, [](vec<A> v) { return v; }, u, x.row(t));
        if constexpr (traits::r.input == router_input::unit_length) {
            const vec<A> length = broadcast<A>(length_of<A>(u, H));
            map<A>(
                H, [&](vec<A> v) { return v / length; }, u, u);
        } else if constexpr (traits::r.input == router_input::rms_norm) {
            const vec<A> root = broadcast<A>(gatefold::sqrt(static_cast<A>(H)));
            const vec<A> rms = broadcast<A>(root_mean_square<A>(u, H));
            const auto scaled = [&](vec<A> v, vec<A> scale) { return mul(v / rms, scale) / root; };
            map<A>(H, scaled, u, u, w.router_scale.data());
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
        const vec<A> length = broadcast<A>(memory.head_norms[e]);
        map<A>(
            P, [&](vec<A> v) { return v / length; }, memory.directions + index_t{e} * P, head);
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
        if constexpr (logits_traits<L>::cosine) {
            memory.norms[t] = length_of<A>(f, P);
            const vec<A> length = broadcast<A>(memory.norms[t]);
            map<A>(
                P, [&](vec<A> v) { return v / length; }, f, f);
        } else {
            map<A>(
                P, [](vec<A> v) { return gatefold::tanh(v); }, f, f);
        }
    });
}

/// What follows the projection of one token: temperature, bias, rounding where the configuration says so.
template <class W, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
GATEFOLD_INLINE void finish_logits(const W& w, A* z) {
    using traits = logits_traits<L>;
    constexpr int n = L::choices;
    for (int e = 0; traits::finishes && e < n; e += lanes<A>) {
        vec<A> v = traits::r.logits == projection::none ? zeros<A>() : load_first<A>(z + e, n - e);
        if constexpr (traits::cosine) v = v / broadcast<A>(temperature_of(w));
        if constexpr (traits::r.bias) v = add(v, load_first<A>(w.router_bias.data() + e, n - e));
        if constexpr (traits::rounds) v = rounded_to<typename L::value_type>(v);
        store_first(z + e, v, n - e);
    }
}

/// The projection of a router that is one product, for phases of a region.
template <class W, layer_type L = typename W::layer_type, class A = typename L::accumulate_type>
GATEFOLD_INLINE auto product_of_logits(const context<cpu>& ctx, const W& w, const rows_of<typename L::value_type>& x,
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
    if constexpr (traits::finishes)
        for_each_token(ctx, count, [&](index_t t) { finish_logits(w, logits + t * stride); });
}

/// Mean and standard deviation of one row of logits.
template <class A>
struct row_moments {
    A mean, deviation;
    row_moments(const A* z, int n) {
        mean = row_sum<A>(n, [&](int i) { return load_first<A>(z + i, n - i); }) / static_cast<A>(n);
        // Behind the end stands the mean, which deviates by zero.
        const A square = row_sum<A>(n, [&](int i) {
            const vec<A> d = load_or<A>(z + i, n - i, mean) - broadcast<A>(mean);
            return mul(d, d);
        });
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
            const vec<A> mean = broadcast<A>(m.mean), deviation = broadcast<A>(m.deviation);
            const auto normal = [&](vec<A> v) {
                return mul(m.deviation == A(0) ? zeros<A>() : (v - mean) / deviation, broadcast<A>(size));
            };
            map<A>(N, normal, z, z);
        } else {
            token_draws<A> draws(draw, transform == logit_transform::gumbel ? purpose::gumbel : purpose::gaussian,
                                 token);
            for (int e = 0; e < N; e += lanes<A>) {
                vec<A> drawn, factor = broadcast<A>(size);
                if constexpr (transform == logit_transform::gumbel)
                    drawn = draws.gumbel(e);
                else
                    drawn = draws.normal(e);
                if constexpr (traits::noisy) {
                    factor = noise_deviation(load_first<A>(memory.deviations + t * N + e, N - e));
                    if (deviations) store_first(deviations + (first + t) * N + e, factor, N - e);
                }
                if constexpr (transform == logit_transform::gaussian) factor = broadcast<A>(size / static_cast<A>(N));
                store_first(z + e, number<vec<A>>::fma(drawn, factor, load_first<A>(z + e, N - e)), N - e);
            }
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
