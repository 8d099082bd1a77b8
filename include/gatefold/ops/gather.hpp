// Rows picked by index, and their way back: gather copies rows out, scatter_add adds rows in.
//
// scatter_add sorts the indices first, stably, so that every row of the result is summed in the order of the indices,
// in float (double for double), and rounded once: the same bits for any number of threads.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include <gatefold/ops/arguments.hpp>
#include <gatefold/ops/rows.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// Throws unless every index lies in [0, count).
template <class Ids>
void check_ids(const Ids& ids, index_t count, const char* function, const char* argument) {
    for (index_t i = 0; i < ids.extent(0); ++i)
        require(ids[i] >= 0 && ids[i] < count, function, argument,
                "indices of zero or more and below the number of rows", ids[i]);
}

namespace on_cpu {

/// Stable counting sort of n keys in [0, count): `order` lists the places of key 0, then of key 1, …; `offsets`
/// [count + 1] tells where each begins.
template <class Key>
void sort_places(const Key* keys, index_t n, index_t count, std::int32_t* offsets, std::int32_t* order) {
    std::memset(offsets, 0, static_cast<std::size_t>(count + 1) * sizeof *offsets);
    for (index_t i = 0; i < n; ++i) ++offsets[keys[i] + 1];
    for (index_t k = 0; k < count; ++k) offsets[k + 1] += offsets[k];
    // offsets[k] runs to the end of key k while it is used as a cursor, which is the beginning of k + 1.
    for (index_t i = 0; i < n; ++i) order[offsets[keys[i]]++] = static_cast<std::int32_t>(i);
    for (index_t k = count; k > 0; --k) offsets[k] = offsets[k - 1];
    offsets[0] = 0;
}

template <class Table, class Ids, class Out>
void gather_rows(context<cpu>& ctx, const Table& table, const Ids& ids, const Out& out) {
    using A = std::conditional_t<std::is_same_v<typename Out::value_type, double>, double,
                                 accumulate_t<typename Table::value_type>>;
    const index_t n = out.extent(1);
    share_out(ctx, ids.extent(0), n, [&](index_t first, index_t last) {
        for (index_t i = first; i < last; ++i)
            map<A>(
                n, [](vec<A> v) { return v; }, out.row(i), table.row(ids[i]));
    });
}

template <class Rows, class Ids, class Out>
void scatter_add_rows(context<cpu>& ctx, const Rows& rows, const Ids& ids, const Out& out, bool accumulate) {
    using A = accumulate_t<typename Rows::value_type>;
    const index_t count = out.extent(0), n = out.extent(1), picked = ids.extent(0);
    auto* const offsets = reinterpret_cast<std::int32_t*>(
        ctx.workspace(static_cast<std::size_t>(count + 1 + picked) * sizeof(std::int32_t)));
    std::int32_t* const order = offsets + count + 1;
    sort_places(ids.data(), picked, count, offsets, order);
    share_out(ctx, count, n * (1 + picked / (count > 0 ? count : 1)), [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r) {
            const std::int32_t* const places = order + offsets[r];
            const index_t own = offsets[r + 1] - offsets[r];
            if (own == 0 && accumulate) continue;
            fold_columns<A>(
                0, n, own, accumulate, [](vec<A> sum, index_t, vec<A> v) { return add(sum, v); }, out.row(r),
                [&](index_t i) { return rows.row(places[i]); });
        }
    });
}

}  // namespace on_cpu

/// The checks and the kernel of gather and embedding, which differ in name only.
template <class Table, class Ids, class Out>
void checked_gather(context<cpu>& ctx, const char* function, const char* table_name, const Table& table, const Ids& ids,
                    Out& out) {
    const auto t = input(table, function, table_name);
    const auto i = input(ids, function, "ids");
    const auto y = output(out, function, "out");
    check_extent(y, 0, i.extent(0), function, "out");
    check_extent(y, 1, t.extent(1), function, "out");
    check_ids(i, t.extent(0), function, "ids");
    check_apart(y, t, function, "out");
    check_apart(y, i, function, "out");
    on_cpu::gather_rows(ctx, t, i, y);
}

template <class Rows, class Ids, class Out>
void checked_scatter(context<cpu>& ctx, const char* function, const char* rows_name, const char* out_name,
                     const Rows& rows, const Ids& ids, Out& out, into mode) {
    const auto x = input(rows, function, rows_name);
    const auto i = input(ids, function, "ids");
    const auto y = output(out, function, out_name);
    constexpr index_t most = (std::numeric_limits<std::int32_t>::max)();
    check_extent(x, 0, i.extent(0), function, rows_name);
    check_extent(x, 1, y.extent(1), function, rows_name);
    require(i.extent(0) < most && y.extent(0) < most, function, "ids", "extents below 2^31", "more");
    check_ids(i, y.extent(0), function, "ids");
    check_apart(y, x, function, out_name);
    check_apart(y, i, function, out_name);
    on_cpu::scatter_add_rows(ctx, x, i, y, mode == into::accumulate);
}

/// Could out [N, H] hold rows of table [V, H] picked by ids [N]?
template <class Table, class Ids, class Out>
constexpr bool picks_rows() {
    return view_type<Table&>::rank == 2 && view_type<Ids&>::rank == 1 && view_type<Out&>::rank == 2 &&
           may_match(known_extent<Ids>(0), known_extent<Out>(0)) &&
           may_match(known_extent<Table>(-1), known_extent<Out>(-1));
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// out[i] = table[ids[i]], row by row, converted to the type of out.
///
/// Shapes: table [V, H], ids [N], out [N, H].
/// Throws: argument_error where extents differ, memory is missing, an id is not in [0, V), or out overlaps an input;
///         out is untouched then.
template <readable Table, host_array_of<const std::int32_t> Ids, writable Out>
void gather(context<cpu>& ctx, const Table& table, const Ids& ids, Out&& out) {
    static_assert(detail::picks_rows<const Table, const Ids, Out>(),
                  "gatefold::gather: table must be [V, H], ids [N] and out [N, H]");
    detail::checked_gather(ctx, "gather", "table", table, ids, out);
}

/// out[v] = Σ rows[i] over the i with ids[i] = v, in ascending i; with into::accumulate added to what out holds.
///
/// Backward of gather, whose table gradient it is; its own backward is gather.
/// Shapes: rows [N, H], ids [N], out [V, H].
/// Throws: argument_error where extents differ, memory is missing, an id is not in [0, V), or out overlaps an input;
///         out is untouched then.
template <readable Rows, host_array_of<const std::int32_t> Ids, writable Out>
void scatter_add(context<cpu>& ctx, const Rows& rows, const Ids& ids, Out&& out, into mode = into::replace) {
    static_assert(detail::picks_rows<Out, const Ids, const Rows>(),
                  "gatefold::scatter_add: rows must be [N, H], ids [N] and out [V, H]");
    static_assert(detail::sums_alike<const Rows, Out>, "gatefold::scatter_add: double does not mix with other types");
    detail::checked_scatter(ctx, "scatter_add", "rows", "out", rows, ids, out, mode);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
