// Stable sorts: they give the order in which to visit the elements, and leave the elements where they are.
//
//     keys[N] ──> order[N]: keys[order[0]], keys[order[1]], … are sorted; equal keys stay in the order they came in
//
// gather(ctx, rows, order, sorted) brings rows into that order, scatter_add takes them back (and is the gradient).
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include <gatefold/ops/arguments.hpp>
#include <gatefold/ops/gather.hpp>

namespace gatefold::inline v0 {

/// The direction of a sort. A NaN comes last in both: it counts as the worst of all numbers, +inf or -inf.
enum class sort_order { ascending, descending };

namespace detail {

/// A key as the sorts compare it: NaN replaced by the infinity that comes last.
template <sort_order Order, class Key>
GATEFOLD_INLINE auto sort_key(Key key) {
    if constexpr (scalar<Key>) {
        using A = accumulate_t<Key>;
        const A value = static_cast<A>(key), infinity = static_cast<A>(__builtin_huge_valf());
        return value == value ? value : Order == sort_order::ascending ? infinity : -infinity;
    } else
        return key;
}
/// Must `a` come before an equal or earlier `b`?
template <sort_order Order, class Key>
GATEFOLD_INLINE bool comes_before(Key a, Key b) {
    if constexpr (Order == sort_order::ascending)
        return sort_key<Order>(a) < sort_key<Order>(b);
    else
        return sort_key<Order>(b) < sort_key<Order>(a);
}

}  // namespace detail
}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// Merge sort of places: runs of 16 by insertion, then runs of twice the length from one array into the other.
template <sort_order Order, class Key>
void merge_sort_places(const Key* keys, std::int32_t n, std::int32_t* order, std::int32_t* spare) {
    constexpr std::int32_t run = 16;
    const auto before = [keys](std::int32_t a, std::int32_t b) { return comes_before<Order>(keys[a], keys[b]); };
    int passes = 0;
    for (index_t length = run; length < n; length *= 2) ++passes;
    // So that the last pass ends in `order`.
    std::int32_t* from = passes % 2 == 0 ? order : spare;
    std::int32_t* to = passes % 2 == 0 ? spare : order;
    for (std::int32_t first = 0; first < n; first += run) {
        const std::int32_t last = n - first < run ? n : first + run;
        for (std::int32_t i = first; i < last; ++i) {
            std::int32_t j = i;
            for (; j > first && before(i, from[j - 1]); --j) from[j] = from[j - 1];
            from[j] = i;
        }
        if (n - first <= run) break;  // first + run may not be an int32
    }
    for (index_t length = run; length < n; length *= 2) {
        for (index_t first = 0; first < n; first += 2 * length) {
            const index_t middle = first + length < n ? first + length : n;
            const index_t last = middle + length < n ? middle + length : n;
            index_t a = first, b = middle;
            for (index_t i = first; i < last; ++i)
                to[i] = b < last && (a == middle || before(from[b], from[a])) ? from[b++] : from[a++];
        }
        std::int32_t* const swapped = from;
        from = to;
        to = swapped;
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Sorts by keys of any number type, N log N comparisons, for any number of threads in the same way.
///
/// Shapes: keys [N], order [N]; a template argument sort_order::descending turns the direction.
/// Throws: argument_error where extents differ or reach 2^31, memory is missing, or order overlaps keys.
template <sort_order Order = sort_order::ascending, host_array Keys, host_array_of<std::int32_t> Places>
void stable_sort(context<cpu>& ctx, const Keys& keys, Places&& order) {
    using Key = detail::element_of<const Keys&>;
    static_assert(scalar<Key> || std::is_integral_v<Key>, "gatefold::stable_sort: keys must be numbers");
    static_assert(detail::view_type<const Keys&>::rank == 1 && detail::view_type<Places&>::rank == 1 &&
                      detail::shapes_may_match<const Keys, Places>(),
                  "gatefold::stable_sort: keys and order must be vectors of one length");
    const auto k = detail::input(keys, "stable_sort", "keys");
    const auto to = detail::output(order, "stable_sort", "order");
    detail::check_extent(to, 0, k.extent(0), "stable_sort", "order");
    require(k.extent(0) < (std::numeric_limits<std::int32_t>::max)(), "stable_sort", "keys", "fewer than 2^31 keys",
            k.extent(0));
    detail::check_apart(to, k, "stable_sort", "order");
    auto* const spare =
        reinterpret_cast<std::int32_t*>(ctx.workspace(static_cast<std::size_t>(k.extent(0)) * sizeof(std::int32_t)));
    detail::merge_sort_places<Order>(k.data(), static_cast<std::int32_t>(k.extent(0)), to.data(), spare);
}

/// Sorts by small whole keys in one pass: order lists the places of key 0, then of key 1, …, and offsets[k] tells where
/// those of key k begin; offsets[K] = N. This is how tokens are grouped by expert.
///
/// Shapes: keys [N], order [N], offsets [K + 1] for keys in [0, K).
/// Throws: argument_error where extents differ or reach 2^31, a key is not in [0, K), memory is missing, or the outputs
///         overlap anything; they are untouched then.
template <host_array_of<const std::int32_t> Keys, host_array_of<std::int32_t> Places,
          host_array_of<std::int32_t> Offsets>
void counting_sort(context<cpu>&, const Keys& keys, Places&& order, Offsets&& offsets) {
    static_assert(detail::view_type<const Keys&>::rank == 1 && detail::view_type<Places&>::rank == 1 &&
                      detail::view_type<Offsets&>::rank == 1 && detail::shapes_may_match<const Keys, Places>(),
                  "gatefold::counting_sort: keys and order must be vectors of one length, offsets a vector");
    const auto k = detail::input(keys, "counting_sort", "keys");
    const auto to = detail::output(order, "counting_sort", "order");
    const auto begins = detail::output(offsets, "counting_sort", "offsets");
    detail::check_extent(to, 0, k.extent(0), "counting_sort", "order");
    require(begins.extent(0) >= 1, "counting_sort", "offsets", "one element more than there are keys to tell apart",
            begins.extent(0));
    require(k.extent(0) < (std::numeric_limits<std::int32_t>::max)(), "counting_sort", "keys", "fewer than 2^31 keys",
            k.extent(0));
    detail::check_ids(k, begins.extent(0) - 1, "counting_sort", "keys");
    detail::check_apart(to, k, "counting_sort", "order");
    detail::check_apart(begins, k, "counting_sort", "offsets");
    detail::check_apart(begins, to, "counting_sort", "offsets");
    detail::on_cpu::sort_places(k.data(), k.extent(0), begins.extent(0) - 1, begins.data(), to.data());
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
