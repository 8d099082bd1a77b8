// Softmax and log-softmax along the last dimension, forward and backward.
//
// A row is computed in float (double for double) and rounded once at the end. Sums run in the order of ops/rows.hpp. A
// row with a NaN or a +inf, and one of nothing but -inf, gives NaN; single elements of -inf give probability 0.
#pragma once

#include <type_traits>

#include <gatefold/ops/arguments.hpp>
#include <gatefold/ops/rows.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// What a softmax needs of a row: its largest element and Σ exp(x − largest).
template <class A>
struct exponential_sum {
    A largest, sum;
};

template <class A, class T>
GATEFOLD_INLINE exponential_sum<A> sum_exponentials(index_t n, const T* x) {
    const A largest = max_of_row<A>(n, x);
    const vec<A> shift = broadcast(largest);
    return {largest,
            sum_of_row<A>(
                n, [shift](vec<A> sum, vec<A> v) { return add(sum, gatefold::exp(vec<A>{v.raw - shift.raw})); }, x)};
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// out = exp(x) / Σ exp(x) along rows.
///
/// Shapes: x and out alike, of any rank; out may be x.
/// Throws: argument_error where shapes differ, memory is missing, or out overlaps x in part.
template <readable X, writable Out>
void softmax(context<cpu>& ctx, const X& x, Out&& out) {
    static_assert(detail::shapes_may_match<const X, Out>(), "gatefold::softmax: x and out must have the same shape");
    static_assert(detail::sums_alike<const X, Out>, "gatefold::softmax: double does not mix with other types");
    namespace simd = detail::on_cpu;
    using A = accumulate_t<detail::element_of<const X&>>;
    const auto a = detail::input(x, "softmax", "x");
    const auto y = detail::output(out, "softmax", "out");
    detail::check_shape(y, a, "softmax", "out");
    detail::check_same_or_apart(y, a, "softmax", "out");
    const index_t n = a.extent(a.rank - 1);
    simd::share_out(ctx, a.rows(), 16 * n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r) {
            const simd::vec<A> shift = simd::broadcast(simd::max_of_row<A>(n, a.row(r)));
            const auto exponential_of = [shift](simd::vec<A> v) {
                return gatefold::exp(simd::vec<A>{v.raw - shift.raw});
            };
            if constexpr (std::is_same_v<detail::element_of<Out&>, A>) {
                // The output is wide enough to hold the exponentials between the two passes.
                simd::map<A>(n, exponential_of, y.row(r), a.row(r));
                const A* const e = y.row(r);
                const simd::vec<A> sum = simd::broadcast(simd::sum_of_row<A>(
                    n, [](simd::vec<A> s, simd::vec<A> v) { return simd::add(s, v); }, e));
                simd::map<A>(
                    n, [sum](simd::vec<A> v) { return simd::vec<A>{v.raw / sum.raw}; }, y.row(r), e);
            } else {
                const simd::vec<A> sum = simd::broadcast(simd::sum_exponentials<A>(n, a.row(r)).sum);
                simd::map<A>(
                    n, [&](simd::vec<A> v) { return simd::vec<A>{exponential_of(v).raw / sum.raw}; }, y.row(r),
                    a.row(r));
            }
        }
    });
}

/// The gradient of softmax: dx = y (dy − Σ y dy), from the output y.
///
/// Shapes: y, dy and dx alike; dx may be y or dy.
/// Throws: argument_error where shapes differ, memory is missing, or dx overlaps an input in part.
template <readable Y, readable Dy, writable Dx>
void softmax_backward(context<cpu>& ctx, const Y& y, const Dy& dy, Dx&& dx) {
    static_assert(detail::shapes_may_match<const Y, const Dy>() && detail::shapes_may_match<const Y, Dx>(),
                  "gatefold::softmax_backward: y, dy and dx must have the same shape");
    static_assert(detail::sums_alike<const Y, const Dy, Dx>,
                  "gatefold::softmax_backward: double does not mix with other types");
    namespace simd = detail::on_cpu;
    using A = accumulate_t<detail::element_of<const Y&>>;
    const auto p = detail::input(y, "softmax_backward", "y");
    const auto g = detail::input(dy, "softmax_backward", "dy");
    const auto to = detail::output(dx, "softmax_backward", "dx");
    detail::check_shape(g, p, "softmax_backward", "dy");
    detail::check_shape(to, p, "softmax_backward", "dx");
    detail::check_same_or_apart(to, p, "softmax_backward", "dx");
    detail::check_same_or_apart(to, g, "softmax_backward", "dx");
    const index_t n = p.extent(p.rank - 1);
    simd::share_out(ctx, p.rows(), 4 * n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r) {
            const simd::vec<A> dot = simd::broadcast(simd::sum_of_row<A>(
                n, [](simd::vec<A> sum, simd::vec<A> u, simd::vec<A> v) { return gatefold::fma(u, v, sum); }, p.row(r),
                g.row(r)));
            simd::map<A>(
                n, [dot](simd::vec<A> u, simd::vec<A> v) { return simd::mul(u, simd::vec<A>{v.raw - dot.raw}); },
                to.row(r), p.row(r), g.row(r));
        }
    });
}

/// out = x − log Σ exp(x) along rows.
///
/// Shapes: x and out alike, of any rank; out may be x.
/// Throws: argument_error where shapes differ, memory is missing, or out overlaps x in part.
template <readable X, writable Out>
void log_softmax(context<cpu>& ctx, const X& x, Out&& out) {
    static_assert(detail::shapes_may_match<const X, Out>(),
                  "gatefold::log_softmax: x and out must have the same shape");
    static_assert(detail::sums_alike<const X, Out>, "gatefold::log_softmax: double does not mix with other types");
    namespace simd = detail::on_cpu;
    using A = accumulate_t<detail::element_of<const X&>>;
    const auto a = detail::input(x, "log_softmax", "x");
    const auto y = detail::output(out, "log_softmax", "out");
    detail::check_shape(y, a, "log_softmax", "out");
    detail::check_same_or_apart(y, a, "log_softmax", "out");
    const index_t n = a.extent(a.rank - 1);
    simd::share_out(ctx, a.rows(), 16 * n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r) {
            const auto row = simd::sum_exponentials<A>(n, a.row(r));
            const simd::vec<A> shift = simd::broadcast(row.largest),
                               logarithm = simd::broadcast(gatefold::log(row.sum));
            simd::map<A>(
                n, [&](simd::vec<A> v) { return simd::vec<A>{(v.raw - shift.raw) - logarithm.raw}; }, y.row(r),
                a.row(r));
        }
    });
}

/// The gradient of log_softmax: dx = dy − exp(y) Σ dy, from the output y.
///
/// Shapes: y, dy and dx alike; dx may be y or dy.
/// Throws: argument_error where shapes differ, memory is missing, or dx overlaps an input in part.
template <readable Y, readable Dy, writable Dx>
void log_softmax_backward(context<cpu>& ctx, const Y& y, const Dy& dy, Dx&& dx) {
    static_assert(detail::shapes_may_match<const Y, const Dy>() && detail::shapes_may_match<const Y, Dx>(),
                  "gatefold::log_softmax_backward: y, dy and dx must have the same shape");
    static_assert(detail::sums_alike<const Y, const Dy, Dx>,
                  "gatefold::log_softmax_backward: double does not mix with other types");
    namespace simd = detail::on_cpu;
    using A = accumulate_t<detail::element_of<const Y&>>;
    const auto p = detail::input(y, "log_softmax_backward", "y");
    const auto g = detail::input(dy, "log_softmax_backward", "dy");
    const auto to = detail::output(dx, "log_softmax_backward", "dx");
    detail::check_shape(g, p, "log_softmax_backward", "dy");
    detail::check_shape(to, p, "log_softmax_backward", "dx");
    detail::check_same_or_apart(to, p, "log_softmax_backward", "dx");
    detail::check_same_or_apart(to, g, "log_softmax_backward", "dx");
    const index_t n = p.extent(p.rank - 1);
    simd::share_out(ctx, p.rows(), 16 * n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r) {
            const simd::vec<A> sum = simd::broadcast(simd::sum_of_row<A>(
                n, [](simd::vec<A> s, simd::vec<A> v) { return simd::add(s, v); }, g.row(r)));
            const simd::vec<A> less = {-sum.raw};
            simd::map<A>(
                n, [less](simd::vec<A> u, simd::vec<A> v) { return gatefold::fma(gatefold::exp(u), less, v); },
                to.row(r), p.row(r), g.row(r));
        }
    });
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
