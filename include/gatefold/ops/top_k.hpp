// The k largest elements of each row, in descending order: the order contract that the routers keep as well.
//
// Equal elements go by their place, the lower first; a NaN counts as -inf. The heap of the k best is kept in the
// output, so that no scratch is needed and a row costs n + (replacements) · log k.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include <gatefold/ops/arguments.hpp>
#include <gatefold/ops/rows.hpp>
#include <gatefold/ops/sort.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// Does element a of the row rank above element b?
template <class T>
GATEFOLD_INLINE bool ranks_above(const T* x, std::int32_t a, std::int32_t b) {
    const auto u = sort_key<sort_order::descending>(x[a]), v = sort_key<sort_order::descending>(x[b]);
    return u > v || (u == v && a < b);
}

/// Lets the element at the top of a heap, in which every element ranks above its parent, sink to its place.
template <class T>
GATEFOLD_INLINE void sink(const T* x, std::int32_t* heap, index_t size, index_t at) {
    const std::int32_t moving = heap[at];
    for (index_t child; (child = 2 * at + 1) < size; at = child) {
        if (child + 1 < size && ranks_above(x, heap[child], heap[child + 1])) ++child;
        if (!ranks_above(x, moving, heap[child])) break;
        heap[at] = heap[child];
    }
    heap[at] = moving;
}

/// The places of the k best of n elements, best first.
template <class T>
void rank_row(const T* x, index_t n, std::int32_t* best, index_t k) {
    for (index_t i = 0; i < k; ++i) best[i] = static_cast<std::int32_t>(i);
    for (index_t i = k / 2; i-- > 0;) sink(x, best, k, i);
    for (index_t i = k; i < n; ++i) {
        const auto place = static_cast<std::int32_t>(i);
        if (!ranks_above(x, place, best[0])) continue;
        best[0] = place;
        sink(x, best, k, 0);
    }
    for (index_t size = k - 1; size > 0; --size) {
        const std::int32_t worst = best[0];
        best[0] = best[size];
        best[size] = worst;
        sink(x, best, size, 0);
    }
}

/// Could `part` be rows of k elements for the rows of X?
template <class X, class Part>
constexpr bool rows_alike() {
    constexpr int rank = view_type<X&>::rank;
    if (view_type<Part&>::rank != rank) return false;
    for (int d = 0; d + 1 < rank; ++d)
        if (!may_match(known_extent<X>(d), known_extent<Part>(d))) return false;
    return true;
}
template <class V, class M>
void check_outer(const V& v, const M& model, const char* function, const char* argument) {
    for (int d = 0; d + 1 < V::rank; ++d) check_extent(v, d, model.extent(d), function, argument);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// The k largest elements of each row and their places, largest first; k is the length of the outputs' rows.
///
/// Shapes: x [..., N], values and ids [..., K] with 1 <= K <= N.
/// Throws: argument_error where extents do not fit, memory is missing, or an output overlaps anything; outputs are
///         untouched then.
template <readable X, writable Values, host_array_of<std::int32_t> Ids>
void top_k(context<cpu>& ctx, const X& x, Values&& values, Ids&& ids) {
    static_assert(
        detail::rows_alike<const X, Values>() && detail::rows_alike<const X, Ids>() &&
            detail::may_match(detail::known_extent<Values>(-1), detail::known_extent<Ids>(-1)),
        "gatefold::top_k: values and ids must have the shape of x but for the length of the rows, which is k");
    static_assert(
        detail::known_extent<const X>(-1) == dyn || detail::known_extent<Ids>(-1) <= detail::known_extent<const X>(-1),
        "gatefold::top_k: k, the length of the rows of ids, must not exceed the length of the rows of x");
    const auto a = detail::input(x, "top_k", "x");
    const auto best = detail::output(values, "top_k", "values");
    const auto places = detail::output(ids, "top_k", "ids");
    const index_t n = a.extent(a.rank - 1), k = places.extent(places.rank - 1);
    detail::check_outer(best, a, "top_k", "values");
    detail::check_outer(places, a, "top_k", "ids");
    detail::check_extent(best, best.rank - 1, k, "top_k", "values");
    require(k >= 1 && k <= n, "top_k", "ids", "rows of one element at least and no longer than those of x", k);
    require(n <= (std::numeric_limits<std::int32_t>::max)(), "top_k", "x", "rows shorter than 2^31", n);
    detail::check_apart(best, a, "top_k", "values");
    detail::check_apart(places, a, "top_k", "ids");
    detail::check_apart(places, best, "top_k", "ids");
    detail::on_cpu::share_out(ctx, a.rows(), 4 * n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r) {
            std::int32_t* const row = places.row(r);
            detail::rank_row(a.row(r), n, row, k);
            for (index_t i = 0; i < k; ++i) best.row(r)[i] = static_cast<detail::element_of<Values&>>(a.row(r)[row[i]]);
        }
    });
}

/// The gradient of top_k: dx[r, ids[r, i]] = dvalues[r, i], zero elsewhere.
///
/// Shapes: ids and dvalues [..., K], dx [..., N]; the ids of a row are distinct, as top_k gives them.
/// Throws: argument_error where extents differ, an id is not in [0, N), memory is missing, or dx overlaps an input; dx
///         is untouched then.
template <host_array_of<const std::int32_t> Ids, readable Dvalues, writable Dx>
void top_k_backward(context<cpu>& ctx, const Ids& ids, const Dvalues& dvalues, Dx&& dx) {
    static_assert(detail::shapes_may_match<const Ids, const Dvalues>() && detail::rows_alike<Dx, const Ids>(),
                  "gatefold::top_k_backward: ids and dvalues must have the shape of dx but for the length of the rows");
    const auto places = detail::input(ids, "top_k_backward", "ids");
    const auto g = detail::input(dvalues, "top_k_backward", "dvalues");
    const auto to = detail::output(dx, "top_k_backward", "dx");
    const index_t n = to.extent(to.rank - 1), k = places.extent(places.rank - 1);
    detail::check_shape(g, places, "top_k_backward", "dvalues");
    detail::check_outer(places, to, "top_k_backward", "ids");
    for (index_t r = 0; r < to.rows(); ++r)
        for (index_t i = 0; i < k; ++i)
            require(places.row(r)[i] >= 0 && places.row(r)[i] < n, "top_k_backward", "ids",
                    "places of zero or more inside the row of dx", places.row(r)[i]);
    detail::check_apart(to, places, "top_k_backward", "dx");
    detail::check_apart(to, g, "top_k_backward", "dx");
    detail::on_cpu::share_out(ctx, to.rows(), n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r) {
            for (index_t i = 0; i < n; ++i) to.row(r)[i] = detail::element_of<Dx&>{};
            for (index_t i = 0; i < k; ++i)
                to.row(r)[places.row(r)[i]] = static_cast<detail::element_of<Dx&>>(g.row(r)[i]);
        }
    });
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
