// Sums, means and largest elements: of everything, of each row, and sums of columns; with their backward passes.
//
// Everything is added up in float (double for double). A row runs in the 16 lanes of ops/rows.hpp; a column is one
// chain over the rows in ascending order. The sum of everything cuts each row into blocks of 4096 elements, and adds up
// the sums of the blocks, row after row, as if they were one more row. A NaN is never the largest element of anything:
// it counts as -inf; the first of equal elements is the one that argmax names.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include <gatefold/ops/arguments.hpp>
#include <gatefold/ops/rows.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// The blocks that rows of n elements are cut into when everything is reduced to one number.
struct row_blocks {
    static constexpr index_t block = 4096;
    index_t rows, n, per_row;
    GATEFOLD_INLINE row_blocks(index_t r, index_t columns) : rows(r), n(columns), per_row(ceil_div(columns, block)) {}
    GATEFOLD_INLINE index_t count() const { return rows * per_row; }
    GATEFOLD_INLINE index_t begin(index_t b) const { return b % per_row * block; }
    GATEFOLD_INLINE index_t size(index_t b) const { return begin(b) + block < n ? block : n - begin(b); }
};

/// reduce(n, x) of every block into `partial`, then of those.
template <class A, class V, class Reduce>
A reduce_blocks(context<cpu>& ctx, const V& x, Reduce reduce) {
    const row_blocks blocks(x.rows(), x.extent(x.rank - 1));
    A* const partial = reinterpret_cast<A*>(ctx.workspace(static_cast<std::size_t>(blocks.count()) * sizeof(A)));
    on_cpu::share_out(ctx, blocks.count(), blocks.n < blocks.block ? blocks.n : blocks.block,
                      [&](index_t first, index_t last) {
                          for (index_t b = first; b < last; ++b)
                              partial[b] = reduce(blocks.size(b), x.row(b / blocks.per_row) + blocks.begin(b));
                      });
    return reduce(blocks.count(), static_cast<const A*>(partial));
}

/// The element that stands at place r when those of v are counted through.
template <class V>
GATEFOLD_INLINE auto& element_at(const V& v, index_t r) {
    const index_t n = v.extent(v.rank - 1);
    return v.row(r / n)[r % n];
}

/// out[r] = f(n, row r) for every row of x.
template <class F, class X, class Out>
void reduce_rows(context<cpu>& ctx, const char* function, const X& x, Out& out, F f) {
    const auto a = input(x, function, "x");
    const auto y = output(out, function, "out");
    check_rows(y, a, function, "out");
    check_apart(y, a, function, "out");
    const index_t n = a.extent(a.rank - 1);
    on_cpu::share_out(ctx, a.rows(), n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r)
            element_at(y, r) = static_cast<typename view_type<Out&>::value_type>(f(n, a.row(r)));
    });
}

/// The place of the largest of n elements, the first where several are.
template <class A, class T>
index_t place_of_max(index_t n, const T* x) {
    const A largest = on_cpu::max_of_row<A>(n, x);
    if (largest > -real_format<A>::infinity)
        for (index_t i = 0; i < n; ++i)
            if (static_cast<A>(x[i]) == largest) return i;
    return 0;
}

template <class A, class T>
GATEFOLD_INLINE A plain_sum(index_t n, const T* x) {
    return on_cpu::sum_of_row<A>(
        n, [](on_cpu::vec<A> sum, on_cpu::vec<A> v) { return on_cpu::add(sum, v); }, x);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Σ of all elements; 0 of none. Backward: fill dx with the gradient of the sum.
///
/// Throws: argument_error where memory is missing.
template <readable X>
auto sum(context<cpu>& ctx, const X& x) {
    using A = accumulate_t<detail::element_of<const X&>>;
    const auto a = detail::input(x, "sum", "x");
    if (a.empty()) return A{0};
    return detail::reduce_blocks<A>(ctx, a, [](index_t n, const auto* row) { return detail::plain_sum<A>(n, row); });
}

/// sum(x) divided by the number of elements. Backward: fill dx with the gradient of the mean divided by that number.
///
/// Throws: argument_error where there is no element.
template <readable X>
auto mean(context<cpu>& ctx, const X& x) {
    using A = accumulate_t<detail::element_of<const X&>>;
    const auto a = detail::input(x, "mean", "x");
    require(!a.empty(), "mean", "x", "one element at least", 0);
    return sum(ctx, a) / static_cast<A>(a.size());
}

/// The largest element. Its gradient goes to the place that argmax names.
///
/// Throws: argument_error where there is no element.
template <readable X>
auto(max)(context<cpu>& ctx, const X& x) {
    using A = accumulate_t<detail::element_of<const X&>>;
    const auto a = detail::input(x, "max", "x");
    require(!a.empty(), "max", "x", "one element at least", 0);
    return detail::reduce_blocks<A>(ctx, a,
                                    [](index_t n, const auto* row) { return detail::on_cpu::max_of_row<A>(n, row); });
}

/// The place of the largest element, elements counted through row after row; the first of several.
///
/// Throws: argument_error where there is no element.
template <readable X>
index_t argmax(context<cpu>& ctx, const X& x) {
    using A = accumulate_t<detail::element_of<const X&>>;
    const auto a = detail::input(x, "argmax", "x");
    require(!a.empty(), "argmax", "x", "one element at least", 0);
    const A largest = (max)(ctx, a);
    const index_t n = a.extent(a.rank - 1);
    if (largest > -detail::real_format<A>::infinity)
        for (index_t r = 0; r < a.rows(); ++r)
            for (index_t i = 0; i < n; ++i)
                if (static_cast<A>(a.row(r)[i]) == largest) return r * n + i;
    return 0;
}

/// out[r] = Σ of row r.
///
/// Shapes: x [..., N] of any rank, out without the last dimension (one element where x is a vector).
/// Throws: argument_error where extents differ, memory is missing, or out overlaps x.
template <readable X, writable Out>
void row_sum(context<cpu>& ctx, const X& x, Out&& out) {
    static_assert(detail::rows_may_match<const X, Out>(),
                  "gatefold::row_sum: out must have the shape of x without its last dimension");
    using A = accumulate_t<detail::element_of<const X&>>;
    detail::reduce_rows(ctx, "row_sum", x, out,
                        [](index_t n, const auto* row) { return detail::plain_sum<A>(n, row); });
}

/// dx[r, i] = dout[r]: the gradient of row_sum. Shapes as there.
template <readable Dout, writable Dx>
void row_sum_backward(context<cpu>& ctx, const Dout& dout, Dx&& dx) {
    static_assert(detail::rows_may_match<Dx, const Dout>(),
                  "gatefold::row_sum_backward: dout must have the shape of dx without its last dimension");
    const auto g = detail::input(dout, "row_sum_backward", "dout");
    const auto to = detail::output(dx, "row_sum_backward", "dx");
    detail::check_rows(g, to, "row_sum_backward", "dout");
    detail::check_apart(to, g, "row_sum_backward", "dx");
    const index_t n = to.extent(to.rank - 1);
    detail::on_cpu::share_out(ctx, to.rows(), n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r) {
            const auto value = static_cast<detail::element_of<Dx&>>(detail::element_at(g, r));
            for (index_t i = 0; i < n; ++i) to.row(r)[i] = value;
        }
    });
}

/// out[r] = Σ of row r, divided by its length. Shapes as row_sum.
///
/// Throws: argument_error where rows are empty, extents differ, memory is missing, or out overlaps x.
template <readable X, writable Out>
void row_mean(context<cpu>& ctx, const X& x, Out&& out) {
    static_assert(detail::rows_may_match<const X, Out>(),
                  "gatefold::row_mean: out must have the shape of x without its last dimension");
    using A = accumulate_t<detail::element_of<const X&>>;
    const auto a = detail::input(x, "row_mean", "x");
    require(a.rows() == 0 || !a.empty(), "row_mean", "x", "rows of one element at least", 0);
    detail::reduce_rows(ctx, "row_mean", a, out,
                        [](index_t n, const auto* row) { return detail::plain_sum<A>(n, row) / static_cast<A>(n); });
}

/// dx[r, i] = dout[r] / N: the gradient of row_mean. Shapes as there.
template <readable Dout, writable Dx>
void row_mean_backward(context<cpu>& ctx, const Dout& dout, Dx&& dx) {
    static_assert(detail::rows_may_match<Dx, const Dout>(),
                  "gatefold::row_mean_backward: dout must have the shape of dx without its last dimension");
    using A = accumulate_t<detail::element_of<Dx&>>;
    const auto g = detail::input(dout, "row_mean_backward", "dout");
    const auto to = detail::output(dx, "row_mean_backward", "dx");
    detail::check_rows(g, to, "row_mean_backward", "dout");
    detail::check_apart(to, g, "row_mean_backward", "dx");
    const index_t n = to.extent(to.rank - 1);
    detail::on_cpu::share_out(ctx, to.rows(), n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r) {
            const auto value =
                static_cast<detail::element_of<Dx&>>(static_cast<A>(detail::element_at(g, r)) / static_cast<A>(n));
            for (index_t i = 0; i < n; ++i) to.row(r)[i] = value;
        }
    });
}

/// out[r] = the largest element of row r. Shapes as row_sum.
///
/// Throws: argument_error where rows are empty, extents differ, memory is missing, or out overlaps x.
template <readable X, writable Out>
void row_max(context<cpu>& ctx, const X& x, Out&& out) {
    static_assert(detail::rows_may_match<const X, Out>(),
                  "gatefold::row_max: out must have the shape of x without its last dimension");
    using A = accumulate_t<detail::element_of<const X&>>;
    const auto a = detail::input(x, "row_max", "x");
    require(a.rows() == 0 || !a.empty(), "row_max", "x", "rows of one element at least", 0);
    detail::reduce_rows(ctx, "row_max", a, out,
                        [](index_t n, const auto* row) { return detail::on_cpu::max_of_row<A>(n, row); });
}

/// out[r] = the place of the largest element in row r, the first of several. Shapes as row_sum.
///
/// Throws: argument_error where rows are empty or longer than 2^31, extents differ, memory is missing, or out overlaps
/// x.
template <readable X, host_array_of<std::int32_t> Out>
void row_argmax(context<cpu>& ctx, const X& x, Out&& out) {
    static_assert(detail::rows_may_match<const X, Out>(),
                  "gatefold::row_argmax: out must have the shape of x without its last dimension");
    using A = accumulate_t<detail::element_of<const X&>>;
    const auto a = detail::input(x, "row_argmax", "x");
    const index_t n = a.extent(a.rank - 1);
    require(a.rows() == 0 || (n > 0 && n <= (std::numeric_limits<std::int32_t>::max)()), "row_argmax", "x",
            "rows of one element at least, and below 2^31", n);
    detail::reduce_rows(ctx, "row_argmax", a, out,
                        [](index_t length, const auto* row) { return detail::place_of_max<A>(length, row); });
}

/// dx[r, places[r]] = dout[r], zero elsewhere: the gradient of row_max with the places of row_argmax. Shapes as there.
///
/// Throws: argument_error where extents differ, a place lies outside its row, memory is missing, or dx overlaps an
///         input; dx is untouched then.
template <host_array_of<const std::int32_t> Places, readable Dout, writable Dx>
void row_max_backward(context<cpu>& ctx, const Places& places, const Dout& dout, Dx&& dx) {
    static_assert(detail::rows_may_match<Dx, const Dout>() && detail::rows_may_match<Dx, const Places>(),
                  "gatefold::row_max_backward: places and dout must have the shape of dx without its last dimension");
    const auto at = detail::input(places, "row_max_backward", "places");
    const auto g = detail::input(dout, "row_max_backward", "dout");
    const auto to = detail::output(dx, "row_max_backward", "dx");
    detail::check_rows(at, to, "row_max_backward", "places");
    detail::check_rows(g, to, "row_max_backward", "dout");
    detail::check_apart(to, at, "row_max_backward", "dx");
    detail::check_apart(to, g, "row_max_backward", "dx");
    const index_t n = to.extent(to.rank - 1);
    for (index_t r = 0; r < to.rows(); ++r) {
        const std::int32_t place = detail::element_at(at, r);
        require(place >= 0 && place < n, "row_max_backward", "places", "places inside the row", place);
    }
    detail::on_cpu::share_out(ctx, to.rows(), n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r) {
            for (index_t i = 0; i < n; ++i) to.row(r)[i] = detail::element_of<Dx&>{};
            to.row(r)[detail::element_at(at, r)] = static_cast<detail::element_of<Dx&>>(detail::element_at(g, r));
        }
    });
}

/// out[i] = Σ over all rows of their element i; with into::accumulate added to what out holds.
///
/// Backward: dx is out's gradient in every row. Itself the gradient of a bias.
/// Shapes: x [..., N] of any rank, out [N].
/// Throws: argument_error where extents differ, memory is missing, or out overlaps x.
template <readable X, writable Out>
void column_sum(context<cpu>& ctx, const X& x, Out&& out, into mode = into::replace) {
    static_assert(detail::view_type<Out&>::rank == 1 &&
                      detail::may_match(detail::known_extent<Out>(-1), detail::known_extent<const X>(-1)),
                  "gatefold::column_sum: out must be one vector as long as a row of x");
    static_assert(detail::sums_alike<const X, Out>, "gatefold::column_sum: double does not mix with other types");
    namespace simd = detail::on_cpu;
    using A = accumulate_t<detail::element_of<const X&>>;
    using V = simd::vec<A>;
    const auto a = detail::input(x, "column_sum", "x");
    const auto y = detail::output(out, "column_sum", "out");
    const index_t n = a.extent(a.rank - 1), rows = a.rows();
    detail::check_extent(y, 0, n, "column_sum", "out");
    detail::check_apart(y, a, "column_sum", "out");
    simd::share_out(ctx, ceil_div<index_t>(n, 64), 64 * rows, [&](index_t first, index_t last) {
        simd::fold_columns<A>(
            first * 64, last * 64 < n ? last * 64 : n, rows, mode == into::accumulate,
            [](V sum, index_t, V v) { return simd::add(sum, v); }, y.data(), [&](index_t r) { return a.row(r); });
    });
}

/// dx[r, i] = dout[i] in every row: the gradient of column_sum. Shapes: dout [N], dx [..., N].
template <readable Dout, writable Dx>
void column_sum_backward(context<cpu>& ctx, const Dout& dout, Dx&& dx) {
    static_assert(detail::view_type<const Dout&>::rank == 1 &&
                      detail::may_match(detail::known_extent<const Dout>(-1), detail::known_extent<Dx>(-1)),
                  "gatefold::column_sum_backward: dout must be one vector as long as a row of dx");
    const auto g = detail::input(dout, "column_sum_backward", "dout");
    const auto to = detail::output(dx, "column_sum_backward", "dx");
    const index_t n = to.extent(to.rank - 1);
    detail::check_extent(g, 0, n, "column_sum_backward", "dout");
    detail::check_apart(to, g, "column_sum_backward", "dx");
    detail::on_cpu::share_out(ctx, to.rows(), n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r)
            for (index_t i = 0; i < n; ++i) to.row(r)[i] = static_cast<detail::element_of<Dx&>>(g[i]);
    });
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
