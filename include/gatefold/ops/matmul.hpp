// Matrix products of tensors: out = a · b with either operand transposed, and the two products of its backward.
#pragma once

#include <cstdint>
#include <limits>

#include <gatefold/cpu/gemm/products.hpp>
#include <gatefold/ops/arguments.hpp>
#include <gatefold/ops/rows.hpp>

namespace gatefold::inline v0 {

/// Which operands of a matrix product are read transposed.
enum class transpose { none, a, b, both };

namespace detail {
constexpr bool transposes_a(transpose t) { return t == transpose::a || t == transpose::both; }
constexpr bool transposes_b(transpose t) { return t == transpose::b || t == transpose::both; }
}  // namespace detail

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// out = op(a) · op(b), where op transposes what the template argument names; with into::accumulate out += op(a) ·
/// op(b).
///
/// Shapes: op(a) [M, K], op(b) [K, N], out [M, N]; K = 0 gives zeros.
/// Order:  every output is one chain of fused multiply-adds in ascending k, from zero or from the old output, kept in
///         double where an operand is double, else in float, and rounded once.
/// Throws: argument_error where extents differ, memory is missing, or out overlaps an operand; out is untouched then.
template <transpose Op = transpose::none, readable A, readable B, writable Out>
void matmul(context<cpu>& ctx, const A& a, const B& b, Out&& out, into mode = into::replace) {
    constexpr bool ta = detail::transposes_a(Op), tb = detail::transposes_b(Op);
    static_assert(detail::view_type<const A&>::rank == 2 && detail::view_type<const B&>::rank == 2 &&
                      detail::view_type<Out&>::rank == 2,
                  "gatefold::matmul: a, b and out must be matrices, that is views of two dimensions");
    static_assert(
        detail::may_match(detail::known_extent<const A>(ta ? 0 : 1), detail::known_extent<const B>(tb ? 1 : 0)),
        "gatefold::matmul: the columns of a and the rows of b (after transposition) must be equally many");
    static_assert(detail::may_match(detail::known_extent<const A>(ta ? 1 : 0), detail::known_extent<Out>(0)),
                  "gatefold::matmul: out must have as many rows as a (after transposition)");
    static_assert(detail::may_match(detail::known_extent<const B>(tb ? 0 : 1), detail::known_extent<Out>(1)),
                  "gatefold::matmul: out must have as many columns as b (after transposition)");

    const auto x = detail::input(a, "matmul", "a");
    const auto w = detail::input(b, "matmul", "b");
    const auto y = detail::output(out, "matmul", "out");
    const index_t m = x.extent(ta ? 1 : 0), k = x.extent(ta ? 0 : 1), n = w.extent(tb ? 0 : 1);
    detail::check_extent(w, tb ? 1 : 0, k, "matmul", "b");
    detail::check_extent(y, 0, m, "matmul", "out");
    detail::check_extent(y, 1, n, "matmul", "out");
    constexpr index_t most = (std::numeric_limits<int>::max)();
    require(m <= most && k <= most && n <= most, "matmul", "a, b", "extents below 2^31", "more");
    detail::check_apart(y, x, "matmul", "out");
    detail::check_apart(y, w, "matmul", "out");
    if (m == 0 || n == 0) return;

    using namespace detail::on_cpu;
    using T = detail::element_of<const A&>;
    using U = detail::element_of<const B&>;
    const bool accumulate = mode == into::accumulate;
    const auto columns = static_cast<int>(n), depth = static_cast<int>(k);
    const matrix<detail::element_of<Out&>> to{y.data(), y.row_stride()};
    const std::size_t scratch = product_scratch_bytes(ctx.threads());
    if constexpr (!ta) {
        std::byte* memory = ctx.workspace(scratch);
        const rows_of<T> rows{x.data(), x.row_stride()};
        const grouping all{1, nullptr, m};
        if constexpr (tb)
            product_nt(ctx, memory, all, rows, weights_of<U>{w.data(), w.row_stride()}, columns, depth, to, accumulate);
        else
            product_nn(ctx, memory, all, rows, weights_of<U>{w.data(), w.row_stride()}, columns, depth, to, accumulate);
    } else {
        const grouping all{1, nullptr, k};
        const rows_of<T> rows{x.data(), x.row_stride()};
        if constexpr (!tb) {
            product_tn(ctx, ctx.workspace(scratch), all, rows, rows_of<U>{w.data(), w.row_stride()},
                       static_cast<int>(m), columns, to, accumulate);
        } else {
            // The kernels have no form for two transposed operands: b is turned once.
            std::byte* memory = ctx.workspace(scratch + static_cast<std::size_t>(k * n) * sizeof(U));
            U* turned = reinterpret_cast<U*>(memory + scratch);
            share_out(ctx, k, n, [&](index_t first, index_t last) {
                for (index_t j = 0; j < n; ++j)
                    for (index_t i = first; i < last; ++i) turned[i * n + j] = w.row(j)[i];
            });
            product_tn(ctx, memory, all, rows, rows_of<U>{turned, n}, static_cast<int>(m), columns, to, accumulate);
        }
    }
}

/// The gradients of matmul<Op>: da and db from dout.
///
/// Shapes: a, da and b, db as in matmul, dout as out. `mode` holds for both. da and db may not overlap any argument.
/// Throws: argument_error as matmul does.
template <transpose Op = transpose::none, readable A, readable B, readable Dout, writable Da, writable Db>
void matmul_backward(context<cpu>& ctx, const A& a, const B& b, const Dout& dout, Da&& da, Db&& db,
                     into mode = into::replace) {
    static_assert(detail::shapes_may_match<const A, Da>(), "gatefold::matmul_backward: da must have the shape of a");
    static_assert(detail::shapes_may_match<const B, Db>(), "gatefold::matmul_backward: db must have the shape of b");
    constexpr bool ta = detail::transposes_a(Op), tb = detail::transposes_b(Op);
    // Everything is checked before the first product writes.
    const auto x = detail::input(a, "matmul_backward", "a");
    const auto w = detail::input(b, "matmul_backward", "b");
    const auto dy = detail::input(dout, "matmul_backward", "dout");
    const auto dx = detail::output(da, "matmul_backward", "da");
    const auto dw = detail::output(db, "matmul_backward", "db");
    detail::check_extent(w, tb ? 1 : 0, x.extent(ta ? 0 : 1), "matmul_backward", "b");
    detail::check_extent(dy, 0, x.extent(ta ? 1 : 0), "matmul_backward", "dout");
    detail::check_extent(dy, 1, w.extent(tb ? 0 : 1), "matmul_backward", "dout");
    detail::check_shape(dx, x, "matmul_backward", "da");
    detail::check_shape(dw, w, "matmul_backward", "db");
    constexpr index_t most = (std::numeric_limits<int>::max)();
    for (int d = 0; d < 2; ++d)
        require(x.extent(d) <= most && w.extent(d) <= most, "matmul_backward", "a, b", "extents below 2^31", "more");
    detail::check_apart(dx, x, "matmul_backward", "da");
    detail::check_apart(dx, w, "matmul_backward", "da");
    detail::check_apart(dx, dy, "matmul_backward", "da");
    detail::check_apart(dw, x, "matmul_backward", "db");
    detail::check_apart(dw, w, "matmul_backward", "db");
    detail::check_apart(dw, dy, "matmul_backward", "db");
    detail::check_apart(dw, dx, "matmul_backward", "db");

    // The most that any of the products below takes, so that none of them fails after the other has written.
    const index_t turned = Op != transpose::both ? 0 : x.size() > dy.size() ? x.size() : dy.size();
    ctx.reserve_bytes(detail::on_cpu::product_scratch_bytes(ctx.threads()) +
                      static_cast<std::size_t>(turned) * sizeof(double));
    if constexpr (Op == transpose::none) {
        matmul<transpose::b>(ctx, dy, w, dx, mode);
        matmul<transpose::a>(ctx, x, dy, dw, mode);
    } else if constexpr (Op == transpose::a) {
        matmul<transpose::b>(ctx, w, dy, dx, mode);
        matmul<transpose::none>(ctx, x, dy, dw, mode);
    } else if constexpr (Op == transpose::b) {
        matmul<transpose::none>(ctx, dy, w, dx, mode);
        matmul<transpose::a>(ctx, dy, x, dw, mode);
    } else {
        matmul<transpose::both>(ctx, w, dy, dx, mode);
        matmul<transpose::both>(ctx, dy, x, dw, mode);
    }
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
