// RMSNorm and LayerNorm along the last dimension, forward and backward.
//
// Rows are computed in float (double for double). Sums along a row run in the order of ops/rows.hpp; the gradient of a
// weight is one chain of fused multiply-adds over the rows in ascending order.
#pragma once

#include <gatefold/cpu/simd/row.hpp>
#include <gatefold/ops/arguments.hpp>
#include <gatefold/ops/rows.hpp>

namespace gatefold::inline v0 {

/// Where the weight of an RMSNorm comes in. n = x · rsqrt(mean(x²) + ε).
///
/// rounded:      n is rounded to the type of x, then multiplied by the weight and rounded again (the Llama order)
/// full:         n · w, rounded once (gpt-oss, weights in float)
/// zero_centred: n · (1 + w), rounded once (Gemma, Qwen3-Next)
enum class norm_weight { rounded, full, zero_centred };

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// rsqrt(mean(x²) + ε) of a row.
template <class A, class T>
GATEFOLD_INLINE A inverse_root_mean_square(index_t n, const T* x, A epsilon) {
    const A squares = sum_of_row<A>(
        n, [](vec<A> sum, vec<A> v) { return gatefold::fma(v, v, sum); }, x);
    return gatefold::rsqrt(squares / static_cast<A>(n) + epsilon);
}

/// The factor by which the normalised row is multiplied.
template <norm_weight Form, class A>
GATEFOLD_INLINE vec<A> norm_factor(vec<A> w) {
    if constexpr (Form == norm_weight::zero_centred)
        return add(broadcast<A>(1), w);
    else
        return w;
}

/// Mean and 1 / √(variance + ε) of a row.
template <class A>
struct norm_moments {
    A mean, inverse;
};
template <class A, class T>
GATEFOLD_INLINE norm_moments<A> moments_of(index_t n, const T* x, A epsilon) {
    const A mean = sum_of_row<A>(
                       n, [](vec<A> sum, vec<A> v) { return add(sum, v); }, x) /
                   static_cast<A>(n);
    const vec<A> centre = broadcast(mean);
    const A squares = sum_of_row<A>(
        n,
        [centre](vec<A> sum, vec<A> v) {
            const vec<A> d{v.raw - centre.raw};
            return gatefold::fma(d, d, sum);
        },
        x);
    return {mean, gatefold::rsqrt(squares / static_cast<A>(n) + epsilon)};
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// out = x · rsqrt(mean(x²) + ε) along rows, without a weight.
///
/// Shapes: x and out alike, of any rank; out may be x.
/// Throws: argument_error where shapes differ, memory is missing, or out overlaps x in part.
template <readable X, writable Out>
void rms_norm(context<cpu>& ctx, const X& x, Out&& out, double epsilon = 1e-6) {
    static_assert(detail::shapes_may_match<const X, Out>(), "gatefold::rms_norm: x and out must have the same shape");
    static_assert(detail::sums_alike<const X, Out>, "gatefold::rms_norm: double does not mix with other types");
    namespace simd = detail::on_cpu;
    using A = accumulate_t<detail::element_of<const X&>>;
    const auto a = detail::input(x, "rms_norm", "x");
    const auto y = detail::output(out, "rms_norm", "out");
    detail::check_shape(y, a, "rms_norm", "out");
    detail::check_same_or_apart(y, a, "rms_norm", "out");
    const index_t n = a.extent(a.rank - 1);
    simd::share_out(ctx, a.rows(), 4 * n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r) {
            const auto inverse =
                simd::broadcast(simd::inverse_root_mean_square<A>(n, a.row(r), static_cast<A>(epsilon)));
            simd::map<A>(
                n, [inverse](auto v) { return simd::mul(v, inverse); }, y.row(r), a.row(r));
        }
    });
}

/// out = x · rsqrt(mean(x²) + ε) · weight along rows; Form says where the weight comes in.
///
/// Shapes: x and out alike, of any rank; weight as long as a row. out may be x.
/// Throws: argument_error where shapes differ, memory is missing, or out overlaps x in part or weight at all.
template <norm_weight Form = norm_weight::rounded, readable X, readable W, writable Out>
void rms_norm(context<cpu>& ctx, const X& x, const W& weight, Out&& out, double epsilon = 1e-6) {
    static_assert(detail::shapes_may_match<const X, Out>(), "gatefold::rms_norm: x and out must have the same shape");
    static_assert(detail::view_type<const W&>::rank == 1 &&
                      detail::may_match(detail::known_extent<const W>(-1), detail::known_extent<const X>(-1)),
                  "gatefold::rms_norm: weight must be one vector as long as a row of x");
    static_assert(detail::sums_alike<const X, const W, Out>,
                  "gatefold::rms_norm: double does not mix with other types");
    namespace simd = detail::on_cpu;
    using T = detail::element_of<const X&>;
    using A = accumulate_t<T>;
    const auto a = detail::input(x, "rms_norm", "x");
    const auto w = detail::input(weight, "rms_norm", "weight");
    const auto y = detail::output(out, "rms_norm", "out");
    const index_t n = a.extent(a.rank - 1);
    detail::check_shape(y, a, "rms_norm", "out");
    detail::check_extent(w, 0, n, "rms_norm", "weight");
    detail::check_same_or_apart(y, a, "rms_norm", "out");
    detail::check_apart(y, w, "rms_norm", "out");
    simd::share_out(ctx, a.rows(), 4 * n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r) {
            const auto inverse =
                simd::broadcast(simd::inverse_root_mean_square<A>(n, a.row(r), static_cast<A>(epsilon)));
            simd::map<A>(
                n,
                [inverse](auto v, auto factor) {
                    auto normal = simd::mul(v, inverse);
                    if constexpr (Form == norm_weight::rounded) normal = simd::rounded_to<T>(normal);
                    return simd::mul(normal, simd::norm_factor<Form>(factor));
                },
                y.row(r), a.row(r), w.data());
        }
    });
}

/// The gradients of rms_norm. The roundings inside the forward pass count as the identity.
///
/// Shapes: x, dout and dx alike; weight and dweight as long as a row. dx may be dout; `mode` holds for dweight only.
/// Throws: argument_error where shapes differ, memory is missing, or an output overlaps an input in part.
template <norm_weight Form = norm_weight::rounded, readable X, readable W, readable Dout, writable Dx, writable Dw>
void rms_norm_backward(context<cpu>& ctx, const X& x, const W& weight, const Dout& dout, Dx&& dx, Dw&& dweight,
                       double epsilon = 1e-6, into mode = into::replace) {
    static_assert(detail::shapes_may_match<const X, const Dout>() && detail::shapes_may_match<const X, Dx>(),
                  "gatefold::rms_norm_backward: x, dout and dx must have the same shape");
    static_assert(detail::view_type<const W&>::rank == 1 && detail::view_type<Dw&>::rank == 1 &&
                      detail::may_match(detail::known_extent<const W>(-1), detail::known_extent<const X>(-1)) &&
                      detail::may_match(detail::known_extent<Dw>(-1), detail::known_extent<const X>(-1)),
                  "gatefold::rms_norm_backward: weight and dweight must be vectors as long as a row of x");
    static_assert(detail::sums_alike<const X, const W, const Dout, Dx, Dw>,
                  "gatefold::rms_norm_backward: double does not mix with other types");
    namespace simd = detail::on_cpu;
    using A = accumulate_t<detail::element_of<const X&>>;
    using V = simd::vec<A>;
    const auto a = detail::input(x, "rms_norm_backward", "x");
    const auto w = detail::input(weight, "rms_norm_backward", "weight");
    const auto dy = detail::input(dout, "rms_norm_backward", "dout");
    const auto to = detail::output(dx, "rms_norm_backward", "dx");
    const auto dw = detail::output(dweight, "rms_norm_backward", "dweight");
    const index_t n = a.extent(a.rank - 1), rows = a.rows();
    detail::check_extent(w, 0, n, "rms_norm_backward", "weight");
    detail::check_extent(dw, 0, n, "rms_norm_backward", "dweight");
    detail::check_shape(dy, a, "rms_norm_backward", "dout");
    detail::check_shape(to, a, "rms_norm_backward", "dx");
    detail::check_apart(to, a, "rms_norm_backward", "dx");
    detail::check_apart(to, w, "rms_norm_backward", "dx");
    detail::check_same_or_apart(to, dy, "rms_norm_backward", "dx");
    detail::check_apart(dw, a, "rms_norm_backward", "dweight");
    detail::check_apart(dw, w, "rms_norm_backward", "dweight");
    detail::check_apart(dw, dy, "rms_norm_backward", "dweight");
    detail::check_apart(dw, to, "rms_norm_backward", "dweight");

    // dweight first: it reads dout, which dx may replace.
    A* const inverses = reinterpret_cast<A*>(ctx.workspace(static_cast<std::size_t>(rows) * sizeof(A)));
    simd::share_out(ctx, rows, 2 * n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r)
            inverses[r] = simd::inverse_root_mean_square<A>(n, a.row(r), static_cast<A>(epsilon));
    });
    simd::share_out(ctx, ceil_div<index_t>(n, 64), 64 * 4 * rows, [&](index_t first, index_t last) {
        simd::fold_columns<A>(
            first * 64, last * 64 < n ? last * 64 : n, rows, mode == into::accumulate,
            [&](V sum, index_t r, V v, V g) {
                return gatefold::fma(g, simd::mul(v, simd::broadcast(inverses[r])), sum);
            },
            dw.data(), [&](index_t r) { return a.row(r); }, [&](index_t r) { return dy.row(r); });
    });
    // dx = r (g − x r² Σ g x / n) with g = dout · factor.
    simd::share_out(ctx, rows, 6 * n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r) {
            const A inverse = inverses[r];
            const A dot = simd::sum_of_row<A>(
                n,
                [](V sum, V v, V factor, V g) {
                    return gatefold::fma(simd::mul(g, simd::norm_factor<Form>(factor)), v, sum);
                },
                a.row(r), w.data(), dy.row(r));
            const A pull = gatefold::mul(dot / static_cast<A>(n), gatefold::mul(inverse, inverse));
            const V back = simd::broadcast(-pull), by = simd::broadcast(inverse);
            simd::map<A>(
                n,
                [back, by](V v, V factor, V g) {
                    return simd::mul(by, gatefold::fma(v, back, simd::mul(g, simd::norm_factor<Form>(factor))));
                },
                to.row(r), a.row(r), w.data(), dy.row(r));
        }
    });
}

/// out = (x − mean) / √(variance + ε) · weight + bias along rows, with the population's variance.
///
/// Shapes: x and out alike, of any rank; weight and bias as long as a row. out may be x.
/// Throws: argument_error where shapes differ, memory is missing, or out overlaps x in part or a parameter at all.
template <readable X, readable W, readable Bias, writable Out>
void layer_norm(context<cpu>& ctx, const X& x, const W& weight, const Bias& bias, Out&& out, double epsilon = 1e-5) {
    static_assert(detail::shapes_may_match<const X, Out>(), "gatefold::layer_norm: x and out must have the same shape");
    static_assert(detail::view_type<const W&>::rank == 1 && detail::view_type<const Bias&>::rank == 1 &&
                      detail::may_match(detail::known_extent<const W>(-1), detail::known_extent<const X>(-1)) &&
                      detail::may_match(detail::known_extent<const Bias>(-1), detail::known_extent<const X>(-1)),
                  "gatefold::layer_norm: weight and bias must be vectors as long as a row of x");
    static_assert(detail::sums_alike<const X, const W, const Bias, Out>,
                  "gatefold::layer_norm: double does not mix with other types");
    namespace simd = detail::on_cpu;
    using A = accumulate_t<detail::element_of<const X&>>;
    using V = simd::vec<A>;
    const auto a = detail::input(x, "layer_norm", "x");
    const auto w = detail::input(weight, "layer_norm", "weight");
    const auto b = detail::input(bias, "layer_norm", "bias");
    const auto y = detail::output(out, "layer_norm", "out");
    const index_t n = a.extent(a.rank - 1);
    detail::check_shape(y, a, "layer_norm", "out");
    detail::check_extent(w, 0, n, "layer_norm", "weight");
    detail::check_extent(b, 0, n, "layer_norm", "bias");
    detail::check_same_or_apart(y, a, "layer_norm", "out");
    detail::check_apart(y, w, "layer_norm", "out");
    detail::check_apart(y, b, "layer_norm", "out");
    simd::share_out(ctx, a.rows(), 6 * n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r) {
            const auto row = simd::moments_of<A>(n, a.row(r), static_cast<A>(epsilon));
            const V mean = simd::broadcast(row.mean), inverse = simd::broadcast(row.inverse);
            simd::map<A>(
                n,
                [mean, inverse](V v, V factor, V shift) {
                    return gatefold::fma(simd::mul(V{v.raw - mean.raw}, inverse), factor, shift);
                },
                y.row(r), a.row(r), w.data(), b.data());
        }
    });
}

/// The gradients of layer_norm.
///
/// Shapes: x, dout and dx alike; weight, dweight and dbias as long as a row. dx may be dout; `mode` holds for dweight
///         and dbias.
/// Throws: argument_error where shapes differ, memory is missing, or an output overlaps an input in part.
template <readable X, readable W, readable Dout, writable Dx, writable Dw, writable Db>
void layer_norm_backward(context<cpu>& ctx, const X& x, const W& weight, const Dout& dout, Dx&& dx, Dw&& dweight,
                         Db&& dbias, double epsilon = 1e-5, into mode = into::replace) {
    static_assert(detail::shapes_may_match<const X, const Dout>() && detail::shapes_may_match<const X, Dx>(),
                  "gatefold::layer_norm_backward: x, dout and dx must have the same shape");
    static_assert(detail::view_type<const W&>::rank == 1 && detail::view_type<Dw&>::rank == 1 &&
                      detail::view_type<Db&>::rank == 1 &&
                      detail::may_match(detail::known_extent<const W>(-1), detail::known_extent<const X>(-1)) &&
                      detail::may_match(detail::known_extent<Dw>(-1), detail::known_extent<const X>(-1)) &&
                      detail::may_match(detail::known_extent<Db>(-1), detail::known_extent<const X>(-1)),
                  "gatefold::layer_norm_backward: weight, dweight and dbias must be vectors as long as a row of x");
    static_assert(detail::sums_alike<const X, const W, const Dout, Dx, Dw, Db>,
                  "gatefold::layer_norm_backward: double does not mix with other types");
    namespace simd = detail::on_cpu;
    using A = accumulate_t<detail::element_of<const X&>>;
    using V = simd::vec<A>;
    const auto a = detail::input(x, "layer_norm_backward", "x");
    const auto w = detail::input(weight, "layer_norm_backward", "weight");
    const auto dy = detail::input(dout, "layer_norm_backward", "dout");
    const auto to = detail::output(dx, "layer_norm_backward", "dx");
    const auto dw = detail::output(dweight, "layer_norm_backward", "dweight");
    const auto db = detail::output(dbias, "layer_norm_backward", "dbias");
    const index_t n = a.extent(a.rank - 1), rows = a.rows();
    detail::check_extent(w, 0, n, "layer_norm_backward", "weight");
    detail::check_extent(dw, 0, n, "layer_norm_backward", "dweight");
    detail::check_extent(db, 0, n, "layer_norm_backward", "dbias");
    detail::check_shape(dy, a, "layer_norm_backward", "dout");
    detail::check_shape(to, a, "layer_norm_backward", "dx");
    detail::check_apart(to, a, "layer_norm_backward", "dx");
    detail::check_apart(to, w, "layer_norm_backward", "dx");
    detail::check_same_or_apart(to, dy, "layer_norm_backward", "dx");
    detail::check_apart(dw, a, "layer_norm_backward", "dweight");
    detail::check_apart(dw, w, "layer_norm_backward", "dweight");
    detail::check_apart(dw, dy, "layer_norm_backward", "dweight");
    detail::check_apart(dw, to, "layer_norm_backward", "dweight");
    detail::check_apart(db, a, "layer_norm_backward", "dbias");
    detail::check_apart(db, w, "layer_norm_backward", "dbias");
    detail::check_apart(db, dy, "layer_norm_backward", "dbias");
    detail::check_apart(db, to, "layer_norm_backward", "dbias");
    detail::check_apart(db, dw, "layer_norm_backward", "dbias");

    auto* const moments = reinterpret_cast<simd::norm_moments<A>*>(
        ctx.workspace(static_cast<std::size_t>(rows) * sizeof(simd::norm_moments<A>)));
    simd::share_out(ctx, rows, 3 * n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r) moments[r] = simd::moments_of<A>(n, a.row(r), static_cast<A>(epsilon));
    });
    simd::share_out(ctx, ceil_div<index_t>(n, 64), 64 * 5 * rows, [&](index_t first, index_t last) {
        const index_t begin = first * 64, end = last * 64 < n ? last * 64 : n;
        simd::fold_columns<A>(
            begin, end, rows, mode == into::accumulate,
            [&](V sum, index_t r, V v, V g) {
                const V d{v.raw - simd::broadcast(moments[r].mean).raw};
                return gatefold::fma(g, simd::mul(d, simd::broadcast(moments[r].inverse)), sum);
            },
            dw.data(), [&](index_t r) { return a.row(r); }, [&](index_t r) { return dy.row(r); });
        simd::fold_columns<A>(
            begin, end, rows, mode == into::accumulate, [](V sum, index_t, V g) { return simd::add(sum, g); },
            db.data(), [&](index_t r) { return dy.row(r); });
    });
    // dx = r (g − mean(g) − n mean(g n)) with g = dout · weight and n = (x − mean) r.
    simd::share_out(ctx, rows, 10 * n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r) {
            const V mean = simd::broadcast(moments[r].mean), inverse = simd::broadcast(moments[r].inverse);
            const A along =
                simd::sum_of_row<A>(
                    n, [](V sum, V factor, V g) { return gatefold::fma(g, factor, sum); }, w.data(), dy.row(r)) /
                static_cast<A>(n);
            const A across =
                simd::sum_of_row<A>(
                    n,
                    [mean, inverse](V sum, V v, V factor, V g) {
                        return gatefold::fma(simd::mul(g, factor), simd::mul(V{v.raw - mean.raw}, inverse), sum);
                    },
                    a.row(r), w.data(), dy.row(r)) /
                static_cast<A>(n);
            const V shift = simd::broadcast(along), back = simd::broadcast(-across);
            simd::map<A>(
                n,
                [=](V v, V factor, V g) {
                    const V centred{simd::mul(g, factor).raw - shift.raw};
                    return simd::mul(inverse, gatefold::fma(simd::mul(V{v.raw - mean.raw}, inverse), back, centred));
                },
                to.row(r), a.row(r), w.data(), dy.row(r));
        }
    });
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
