// Element by element: copy with conversion, fill, add, multiply, scale, axpy, and a bias added to every row.
//
// Each element is computed in float (double for double) and rounded once. An output may be one of the inputs; it may
// not overlap one in part.
#pragma once

#include <type_traits>

#include <gatefold/ops/arguments.hpp>
#include <gatefold/ops/rows.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// out = f(x…), all of one shape.
template <class A, class F, class Out, class... X>
GATEFOLD_INLINE void map_alike(context<cpu>& ctx, const char* function, const char* output, F f, const Out& out,
                               const X&... x) {
    (check_shape(out, x, function, output), ...);
    (check_same_or_apart(out, x, function, output), ...);
    on_cpu::map_views<A>(ctx, f, out, x...);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// out = x, converted to the type of out: rounded once where that is narrower.
///
/// Shapes: x and out alike.
/// Throws: argument_error where shapes differ, memory is missing, or out overlaps x in part.
template <readable X, writable Out>
void copy(context<cpu>& ctx, const X& x, Out&& out) {
    static_assert(detail::shapes_may_match<const X, Out>(), "gatefold::copy: x and out must have the same shape");
    using T = detail::element_of<const X&>;
    using A = std::conditional_t<std::is_same_v<detail::element_of<Out&>, double>, double, accumulate_t<T>>;
    const auto a = detail::input(x, "copy", "x");
    const auto y = detail::output(out, "copy", "out");
    detail::map_alike<A>(
        ctx, "copy", "out", [](auto v) { return v; }, y, a);
}

/// Every element of out becomes `value`, rounded once.
template <writable Out>
void fill(context<cpu>& ctx, double value, Out&& out) {
    namespace simd = detail::on_cpu;
    using T = detail::element_of<Out&>;
    const auto y = detail::output(out, "fill", "out");
    const T rounded = static_cast<T>(value);
    simd::share_out(ctx, y.rows(), y.extent(y.rank - 1), [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r)
            for (index_t i = 0; i < y.extent(y.rank - 1); ++i) y.row(r)[i] = rounded;
    });
}

/// out = a + b. Backward: both gradients are dout.
///
/// Shapes: a, b and out alike.
/// Throws: argument_error where shapes differ, memory is missing, or out overlaps an input in part.
template <readable X, readable Y, writable Out>
void add(context<cpu>& ctx, const X& a, const Y& b, Out&& out) {
    namespace simd = detail::on_cpu;
    static_assert(detail::shapes_may_match<const X, Out>() && detail::shapes_may_match<const Y, Out>(),
                  "gatefold::add: a, b and out must have the same shape");
    static_assert(detail::sums_alike<const X, const Y, Out>, "gatefold::add: double does not mix with other types");
    using A = accumulate_t<detail::element_of<const X&>>;
    const auto x = detail::input(a, "add", "a");
    const auto w = detail::input(b, "add", "b");
    const auto y = detail::output(out, "add", "out");
    detail::map_alike<A>(
        ctx, "add", "out", [](auto u, auto v) { return simd::add(u, v); }, y, x, w);
}

/// out = a · b, element by element.
///
/// Shapes: a, b and out alike.
/// Throws: argument_error where shapes differ, memory is missing, or out overlaps an input in part.
template <readable X, readable Y, writable Out>
void mul(context<cpu>& ctx, const X& a, const Y& b, Out&& out) {
    namespace simd = detail::on_cpu;
    static_assert(detail::shapes_may_match<const X, Out>() && detail::shapes_may_match<const Y, Out>(),
                  "gatefold::mul: a, b and out must have the same shape");
    static_assert(detail::sums_alike<const X, const Y, Out>, "gatefold::mul: double does not mix with other types");
    using A = accumulate_t<detail::element_of<const X&>>;
    const auto x = detail::input(a, "mul", "a");
    const auto w = detail::input(b, "mul", "b");
    const auto y = detail::output(out, "mul", "out");
    detail::map_alike<A>(
        ctx, "mul", "out", [](auto u, auto v) { return simd::mul(u, v); }, y, x, w);
}

/// The gradients of mul: da = dout · b and db = dout · a, which may not overlap any argument.
template <readable X, readable Y, readable Dout, writable Da, writable Db>
void mul_backward(context<cpu>& ctx, const X& a, const Y& b, const Dout& dout, Da&& da, Db&& db) {
    static_assert(detail::shapes_may_match<const X, const Y>() && detail::shapes_may_match<const X, const Dout>() &&
                      detail::shapes_may_match<const X, Da>() && detail::shapes_may_match<const X, Db>(),
                  "gatefold::mul_backward: a, b, dout, da and db must have the same shape");
    const auto x = detail::input(a, "mul_backward", "a");
    const auto w = detail::input(b, "mul_backward", "b");
    const auto dy = detail::input(dout, "mul_backward", "dout");
    const auto dx = detail::output(da, "mul_backward", "da");
    const auto dw = detail::output(db, "mul_backward", "db");
    detail::check_shape(w, x, "mul_backward", "b");
    detail::check_shape(dy, x, "mul_backward", "dout");
    detail::check_shape(dx, x, "mul_backward", "da");
    detail::check_shape(dw, x, "mul_backward", "db");
    detail::check_apart(dx, x, "mul_backward", "da");
    detail::check_apart(dx, w, "mul_backward", "da");
    detail::check_apart(dx, dy, "mul_backward", "da");
    detail::check_apart(dw, x, "mul_backward", "db");
    detail::check_apart(dw, w, "mul_backward", "db");
    detail::check_apart(dw, dy, "mul_backward", "db");
    detail::check_apart(dw, dx, "mul_backward", "db");
    mul(ctx, dy, w, dx);
    mul(ctx, dy, x, dw);
}

/// out = factor · x. Backward: scale dout by the same factor.
///
/// Shapes: x and out alike.
/// Throws: argument_error where shapes differ, memory is missing, or out overlaps x in part.
template <readable X, writable Out>
void scale(context<cpu>& ctx, double factor, const X& x, Out&& out) {
    namespace simd = detail::on_cpu;
    static_assert(detail::shapes_may_match<const X, Out>(), "gatefold::scale: x and out must have the same shape");
    static_assert(detail::sums_alike<const X, Out>, "gatefold::scale: double does not mix with other types");
    using A = accumulate_t<detail::element_of<const X&>>;
    const auto a = detail::input(x, "scale", "x");
    const auto y = detail::output(out, "scale", "out");
    const auto by = simd::broadcast(static_cast<A>(factor));
    detail::map_alike<A>(
        ctx, "scale", "out", [by](auto v) { return simd::mul(by, v); }, y, a);
}

/// y += factor · x, one fused multiply-add for each element. Backward: dx is dy scaled by the factor.
///
/// Shapes: x and y alike.
/// Throws: argument_error where shapes differ, memory is missing, or y overlaps x in part.
template <readable X, writable Y>
void axpy(context<cpu>& ctx, double factor, const X& x, Y&& y) {
    namespace simd = detail::on_cpu;
    static_assert(detail::shapes_may_match<const X, Y>(), "gatefold::axpy: x and y must have the same shape");
    static_assert(detail::sums_alike<const X, Y>, "gatefold::axpy: double does not mix with other types");
    using A = accumulate_t<detail::element_of<const X&>>;
    const auto a = detail::input(x, "axpy", "x");
    const auto to = detail::output(y, "axpy", "y");
    const auto by = simd::broadcast(static_cast<A>(factor));
    detail::map_alike<A>(
        ctx, "axpy", "y", [by](auto u, auto v) { return gatefold::fma(by, u, v); }, to, a, detail::as_const(to));
}

/// out = x with `bias` added to every row. Backward: dx is dout, the gradient of bias is column_sum(dout).
///
/// Shapes: x and out alike, bias as long as a row.
/// Throws: argument_error where shapes differ, memory is missing, or out overlaps x in part or bias at all.
template <readable X, readable Bias, writable Out>
void add_bias(context<cpu>& ctx, const X& x, const Bias& bias, Out&& out) {
    namespace simd = detail::on_cpu;
    static_assert(detail::shapes_may_match<const X, Out>(), "gatefold::add_bias: x and out must have the same shape");
    static_assert(detail::view_type<const Bias&>::rank == 1 &&
                      detail::may_match(detail::known_extent<const Bias>(-1), detail::known_extent<const X>(-1)),
                  "gatefold::add_bias: bias must be one vector as long as a row of x");
    static_assert(detail::sums_alike<const X, const Bias, Out>,
                  "gatefold::add_bias: double does not mix with other types");
    using A = accumulate_t<detail::element_of<const X&>>;
    const auto a = detail::input(x, "add_bias", "x");
    const auto b = detail::input(bias, "add_bias", "bias");
    const auto y = detail::output(out, "add_bias", "out");
    detail::check_shape(y, a, "add_bias", "out");
    const index_t n = a.extent(a.rank - 1);
    detail::check_extent(b, 0, n, "add_bias", "bias");
    detail::check_same_or_apart(y, a, "add_bias", "out");
    detail::check_apart(y, b, "add_bias", "out");
    simd::share_out(ctx, y.rows(), n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r)
            simd::map<A>(
                n, [](auto u, auto v) { return simd::add(u, v); }, y.row(r), a.row(r), b.data());
    });
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
