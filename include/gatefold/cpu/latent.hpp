// Experts on a projection of the tokens, on the CPU: the way down, the way up, and back.
//
//     x[T,H] ── latent_down ──> [T,D] ── experts, combine ──> v[T,D] ── RMSNorm ──> n[T,D] ── latent_up ──> y[T,H]
//
// The projections are ascending chains like every product on run-time extents, whatever order bf16 experts use.
#pragma once

#include <gatefold/cpu/rows.hpp>
#include <gatefold/moe/tape.hpp>
#include <gatefold/ops/rows.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Added to the mean square of a latent row before its root is taken.
inline constexpr double latent_epsilon = 1e-5;

/// What the experts read.
template <class W, layer_type L = typename W::layer_type>
void latent_inputs(context<cpu>& ctx, std::byte* scratch, const W& w, const batch<L>& in,
                   typename L::value_type* latent_x) {
    using T = typename L::value_type;
    product_nt(ctx, scratch, {1, nullptr, in.x.extent(0)}, rows_of<T>{in.x.data(), in.x.row_stride()},
               weights_of<T>{w.latent_down.data(), L::hidden}, L::width, L::hidden, matrix<T>{latent_x, L::width});
}

/// 1 / the root of the mean square of a row.
template <class A>
A inverse_length(const A* row, int width) {
    return gatefold::rsqrt(dot<A>(row, row, width) / static_cast<A>(width) + static_cast<A>(latent_epsilon));
}

/// n = v / rms(v) · latent_norm for every token, or v where there is no norm.
template <class W, layer_type L = typename W::layer_type>
void latent_normalised(context<cpu>& ctx, const W& w, const typename L::accumulate_type* v, index_t tokens,
                       typename L::accumulate_type* n) {
    using A = typename L::accumulate_type;
    constexpr int D = L::width;
    const int parts = static_cast<int>(tokens < ctx.threads() ? tokens : ctx.threads());
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(tokens, part, parts);
        for (index_t t = mine.begin; t < mine.end; ++t) {
            const A* from = v + t * D;
            A* to = n + t * D;
            if constexpr (L::c.latent_norm) {
                const vec<A> inverse = broadcast<A>(inverse_length(from, D));
                const auto normal = [&](vec<A> x, vec<A> factor) { return mul(mul(x, inverse), factor); };
                map<A>(D, normal, to, from, w.latent_norm.data());
            } else {
                for (int d = 0; d < D; ++d) to[d] = from[d];
            }
        }
    });
}

/// sums[t] = n[t] · latent_up.
template <class W, layer_type L = typename W::layer_type>
void latent_outputs(context<cpu>& ctx, std::byte* scratch, const W& w, const typename L::accumulate_type* n,
                    index_t tokens, typename L::accumulate_type* sums, index_t stride) {
    using A = typename L::accumulate_type;
    product_nt(ctx, scratch, {1, nullptr, tokens}, rows_of<A>{n, L::width},
               weights_of<typename L::value_type>{w.latent_up.data(), L::width}, L::hidden, L::width,
               matrix<A>{sums, stride});
}

/// From dy to dv, with the gradients of latent_up and latent_norm. `n` holds the normalised rows; dn is scratch.
template <class W, layer_type L = typename W::layer_type>
void latent_outputs_backward(context<cpu>& ctx, std::byte* scratch, const W& w, tape<L>& saved,
                             const view<const typename L::value_type, dyn, L::hidden>& dy, gradients<L>& g,
                             bool accumulate, typename L::accumulate_type* n, typename L::accumulate_type* dn,
                             typename L::accumulate_type* dv) {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    constexpr int D = L::width, H = L::hidden;
    const index_t tokens = dy.extent(0);
    const grouping all{1, nullptr, tokens};
    const A* v = saved.latent_sums().data();
    const rows_of<T> rows{dy.data(), dy.row_stride()};
    latent_normalised(ctx, w, v, tokens, n);
    product_tn(ctx, scratch, all, rows, rows_of<A>{n, D}, H, D, matrix<A>{g.latent_up.data(), D}, accumulate);
    product_nn(ctx, scratch, all, rows, weights_of<T>{w.latent_up.data(), D}, D, H, matrix<A>{dn, D});
    const int parts = static_cast<int>(tokens < ctx.threads() ? tokens : ctx.threads());
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(tokens, part, parts);
        for (index_t t = mine.begin; t < mine.end; ++t) {
            const A *from = v + t * D, *d = dn + t * D;
            A* to = dv + t * D;
            if constexpr (L::c.latent_norm) {
                // n = v r w with r = 1 / rms: dv = r (dn w) - v <dn w, v> r^3 / D; n becomes the factors of d
                // latent_norm.
                const A r = inverse_length(from, D);
                for (int i = 0; i < D; ++i) {
                    to[i] = gatefold::mul(d[i], to_accumulate(w.latent_norm.data()[i]));
                    n[t * D + i] = gatefold::mul(d[i], gatefold::mul(from[i], r));
                }
                const A along =
                    gatefold::mul(gatefold::mul(dot<A>(to, from, D), r), gatefold::mul(r, r)) / static_cast<A>(D);
                for (int i = 0; i < D; ++i) to[i] = gatefold::fma(r, to[i], -gatefold::mul(from[i], along));
            } else {
                for (int i = 0; i < D; ++i) to[i] = d[i];
            }
        }
    });
    if constexpr (L::c.latent_norm) column_sums(ctx, all, rows_of<A>{n, D}, D, g.latent_norm.data(), accumulate);
}

/// dx = d latent_x · latent_down, with the gradient of latent_down.
template <class W, layer_type L = typename W::layer_type>
void latent_inputs_backward(context<cpu>& ctx, std::byte* scratch, const W& w, const batch<L>& in,
                            const typename L::accumulate_type* d_latent_x, gradients<L>& g, bool accumulate,
                            typename L::accumulate_type* dx) {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    const grouping all{1, nullptr, in.x.extent(0)};
    const rows_of<A> d{d_latent_x, L::width};
    product_tn(ctx, scratch, all, d, rows_of<T>{in.x.data(), in.x.row_stride()}, L::width, L::hidden,
               matrix<A>{g.latent_down.data(), L::hidden}, accumulate);
    product_nn(ctx, scratch, all, d, weights_of<T>{w.latent_down.data(), L::hidden}, L::hidden, L::width,
               matrix<A>{dx, L::hidden});
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
