// The activations of ops/activation.hpp on whole tensors.
//
//     activate<activation::relu>(ctx, x, out)                 plain
//     activate<activation::swiglu>(ctx, gate, up, out)        gated: two tensors, or two column blocks of one
//
// Each element is computed in float (double for double) and rounded once. `limit` is the clamp of the limited
// activations, and read by them alone.
#pragma once

#include <gatefold/ops/activation.hpp>
#include <gatefold/ops/arguments.hpp>
#include <gatefold/ops/elementwise.hpp>
#include <gatefold/ops/rows.hpp>

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// out = A(x), element by element; out may be x.
///
/// Shapes: x and out alike.
/// Throws: argument_error where shapes differ, memory is missing, or out overlaps x in part.
template <activation A, readable X, writable Out>
    requires(!is_gated(A))
void activate(context<cpu>& ctx, const X& x, Out&& out) {
    static_assert(detail::shapes_may_match<const X, Out>(), "gatefold::activate: x and out must have the same shape");
    static_assert(detail::sums_alike<const X, Out>, "gatefold::activate: double does not mix with other types");
    using S = accumulate_t<detail::element_of<const X&>>;
    const auto a = detail::input(x, "activate", "x");
    const auto y = detail::output(out, "activate", "out");
    detail::map_alike<S>(
        ctx, "activate", "out", [](auto v) { return activate<A>(v, v); }, y, a);
}

/// dx = dout · A'(x); dx may be x or dout.
///
/// Shapes: x, dout and dx alike.
/// Throws: argument_error where shapes differ, memory is missing, or dx overlaps an input in part.
template <activation A, readable X, readable Dout, writable Dx>
    requires(!is_gated(A))
void activate_backward(context<cpu>& ctx, const X& x, const Dout& dout, Dx&& dx) {
    static_assert(detail::shapes_may_match<const X, Dx>() && detail::shapes_may_match<const Dout, Dx>(),
                  "gatefold::activate_backward: x, dout and dx must have the same shape");
    static_assert(detail::sums_alike<const X, const Dout, Dx>,
                  "gatefold::activate_backward: double does not mix with other types");
    using S = accumulate_t<detail::element_of<const X&>>;
    const auto a = detail::input(x, "activate_backward", "x");
    const auto g = detail::input(dout, "activate_backward", "dout");
    const auto to = detail::output(dx, "activate_backward", "dx");
    detail::map_alike<S>(
        ctx, "activate_backward", "dx", [](auto v, auto d) { return activate_backward<A>(v, d, v); }, to, a, g);
}

/// out = A(gate, up), element by element; out may be one of them.
///
/// Shapes: gate, up and out alike.
/// Throws: argument_error where shapes differ, memory is missing, or out overlaps an input in part.
template <activation A, readable Gate, readable Up, writable Out>
    requires(is_gated(A))
void activate(context<cpu>& ctx, const Gate& gate, const Up& up, Out&& out, double limit = 0) {
    static_assert(detail::shapes_may_match<const Gate, Out>() && detail::shapes_may_match<const Up, Out>(),
                  "gatefold::activate: gate, up and out must have the same shape");
    static_assert(detail::sums_alike<const Gate, const Up, Out>,
                  "gatefold::activate: double does not mix with other types");
    namespace simd = detail::on_cpu;
    using S = accumulate_t<detail::element_of<const Gate&>>;
    const auto a = detail::input(gate, "activate", "gate");
    const auto b = detail::input(up, "activate", "up");
    const auto y = detail::output(out, "activate", "out");
    require(!is_limited(A) || limit > 0, "activate", "limit", "a number above zero", limit);
    const auto bound = simd::broadcast(static_cast<S>(limit));
    detail::map_alike<S>(
        ctx, "activate", "out", [bound](auto u, auto v) { return activate<A>(u, v, bound); }, y, a, b);
}

/// The gradients of gate and up from dout. dgate and dup may be inputs, but not the same one.
///
/// Shapes: all alike.
/// Throws: argument_error where shapes differ, memory is missing, or an output overlaps another argument in part.
template <activation A, readable Gate, readable Up, readable Dout, writable Dgate, writable Dup>
    requires(is_gated(A))
void activate_backward(context<cpu>& ctx, const Gate& gate, const Up& up, const Dout& dout, Dgate&& dgate, Dup&& dup,
                       double limit = 0) {
    static_assert(detail::shapes_may_match<const Gate, const Up>() &&
                      detail::shapes_may_match<const Gate, const Dout>() &&
                      detail::shapes_may_match<const Gate, Dgate>() && detail::shapes_may_match<const Gate, Dup>(),
                  "gatefold::activate_backward: gate, up, dout, dgate and dup must have the same shape");
    static_assert(detail::sums_alike<const Gate, const Up, const Dout, Dgate, Dup>,
                  "gatefold::activate_backward: double does not mix with other types");
    namespace simd = detail::on_cpu;
    using S = accumulate_t<detail::element_of<const Gate&>>;
    const auto a = detail::input(gate, "activate_backward", "gate");
    const auto b = detail::input(up, "activate_backward", "up");
    const auto g = detail::input(dout, "activate_backward", "dout");
    const auto da = detail::output(dgate, "activate_backward", "dgate");
    const auto db = detail::output(dup, "activate_backward", "dup");
    detail::check_shape(b, a, "activate_backward", "up");
    detail::check_shape(g, a, "activate_backward", "dout");
    detail::check_shape(da, a, "activate_backward", "dgate");
    detail::check_shape(db, a, "activate_backward", "dup");
    detail::check_same_or_apart(da, a, "activate_backward", "dgate");
    detail::check_same_or_apart(da, b, "activate_backward", "dgate");
    detail::check_same_or_apart(da, g, "activate_backward", "dgate");
    detail::check_same_or_apart(db, a, "activate_backward", "dup");
    detail::check_same_or_apart(db, b, "activate_backward", "dup");
    detail::check_same_or_apart(db, g, "activate_backward", "dup");
    detail::check_apart(db, da, "activate_backward", "dup");
    require(!is_limited(A) || limit > 0, "activate_backward", "limit", "a number above zero", limit);
    const auto bound = simd::broadcast(static_cast<S>(limit));
    const index_t n = a.extent(a.rank - 1);
    simd::share_out(ctx, a.rows(), 16 * n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r)
            simd::map_two<S>(
                n, [bound](auto u, auto v, auto d) { return activate_backward<A>(u, v, d, bound); }, da.row(r),
                db.row(r), a.row(r), b.row(r), g.row(r));
    });
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
