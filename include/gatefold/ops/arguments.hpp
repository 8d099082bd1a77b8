// What every tensor operation asks of its arguments, before anything is written.
//
//     tensors and views ── readable, writable ──> views ── check: extents, memory, overlap ──> kernels
//
// Extents that both sides know at compile time are compared there, by a static_assert in the operation; all others
// here, at run time. Rows of an operation are all rows of a view of any rank: its last dimension is what it works
// along.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <gatefold/core/context.hpp>
#include <gatefold/core/dtype.hpp>
#include <gatefold/core/error.hpp>
#include <gatefold/core/tensor.hpp>
#include <gatefold/core/view.hpp>

namespace gatefold::inline v0 {

/// Whether the result of an operation replaces what its output holds, or is added to it.
enum class into { replace, accumulate };

namespace detail {

template <class T, int... E>
constexpr basic_view<cpu, T, E...> as_view(const basic_view<cpu, T, E...>& v) {
    return v;
}
template <class T, int... E>
basic_view<cpu, T, E...> as_view(basic_tensor<cpu, T, E...>& t) {
    return t.view();
}
template <class T, int... E>
basic_view<cpu, const T, E...> as_view(const basic_tensor<cpu, T, E...>& t) {
    return t.view();
}
template <class T, int... E>
constexpr basic_view<cpu, const T, E...> as_const(const basic_view<cpu, T, E...>& v) {
    return v;
}

template <class X>
using view_type = decltype(as_view(std::declval<X>()));
template <class X>
using element_of = typename view_type<X>::value_type;

}  // namespace detail

/// A tensor or view in host memory.
template <class X>
concept host_array = requires(X&& x) {
    detail::as_view(x);
};
/// A tensor or view of numbers in host memory.
template <class X>
concept readable = host_array<X> && scalar<detail::element_of<X&>>;
/// A tensor or view of numbers in host memory that may be written.
template <class X>
concept writable = readable<X> && !std::is_const_v<typename detail::view_type<X&>::element_type>;
/// A tensor or view of T in host memory; of const T if it is to be read only.
template <class X, class T>
concept host_array_of = host_array<X> && std::is_convertible_v < typename detail::view_type<X&>::element_type(*)
[], T (*)[] > ;

namespace detail {

/// Extent d of X as the compiler knows it; d < 0 counts from the end.
template <class X>
constexpr int known_extent(int d) {
    using V = view_type<X&>;
    return V::static_extent(d < 0 ? V::rank + d : d);
}
/// Could both extents be the same number?
constexpr bool may_match(int a, int b) { return a == dyn || b == dyn || a == b; }

/// Could X and Y have the same extents?
template <class X, class Y>
constexpr bool shapes_may_match() {
    constexpr int rank = view_type<X&>::rank;
    if (view_type<Y&>::rank != rank) return false;
    for (int d = 0; d < rank; ++d)
        if (!may_match(known_extent<X>(d), known_extent<Y>(d))) return false;
    return true;
}
/// Could all dimensions of X but the last be those of Y?
template <class X, class Y>
constexpr bool rows_may_match() {
    constexpr int rank = view_type<X&>::rank;
    if (view_type<Y&>::rank != rank - 1 && rank > 1) return false;
    for (int d = 0; d + 1 < rank; ++d)
        if (!may_match(known_extent<X>(d), known_extent<Y>(d))) return false;
    return true;
}
template <class X, class... Y>
constexpr bool sums_alike = (std::is_same_v<accumulate_t<element_of<X&>>, accumulate_t<element_of<Y&>>> && ...);

/// Throws unless the extents are what the type says and, if there are elements, `v` has aligned memory for them.
template <class T, int... E>
void check_memory(const basic_view<cpu, T, E...>& v, const char* function, const char* argument) {
    for (int d = 0; d < v.rank; ++d) {
        const int known = v.static_extent(d);
        if (known == dyn)
            require(v.extent(d) >= 0, function, argument, "extents of zero or more", v.extent(d));
        else if (v.data() || known == 0)
            require(v.extent(d) == known, function, argument, known, v.extent(d));
    }
    constexpr bool unknown = ((E == dyn) || ...);
    if (unknown ? v.empty() : ((E == 0) || ...)) return;
    require(v.data() != nullptr, function, argument, "memory", "null");
    require(reinterpret_cast<std::uintptr_t>(v.data()) % alignof(T) == 0, function, argument,
            "an address that is a multiple of the element's alignment",
            static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(v.data()) % alignof(T)));
    if constexpr (!std::is_const_v<T>)
        require(v.rows() <= 1 || v.row_stride() >= v.extent(v.rank - 1), function, argument,
                "rows that do not overlap: a row stride of at least the row's length", v.row_stride());
}

/// What an operation reads, checked.
template <class X>
auto input(const X& x, const char* function, const char* argument) {
    const auto v = as_const(as_view(x));
    check_memory(v, function, argument);
    return v;
}
/// What an operation writes, checked.
template <class X>
auto output(X& x, const char* function, const char* argument) {
    const auto v = as_view(x);
    check_memory(v, function, argument);
    return v;
}

/// Throws unless extent d of `v` is `expected`.
template <class V>
void check_extent(const V& v, int d, index_t expected, const char* function, const char* argument) {
    require(v.extent(d) == expected, function, argument, expected, v.extent(d));
}
/// Throws unless `v` has the extents of `model`.
template <class V, class M>
void check_shape(const V& v, const M& model, const char* function, const char* argument) {
    for (int d = 0; d < V::rank; ++d) check_extent(v, d, model.extent(d), function, argument);
}
/// Throws unless the dimensions of `v` are those of `model` without the last.
template <class V, class M>
void check_rows(const V& v, const M& model, const char* function, const char* argument) {
    if constexpr (M::rank == 1)
        check_extent(v, 0, 1, function, argument);
    else
        for (int d = 0; d + 1 < M::rank; ++d) check_extent(v, d, model.extent(d), function, argument);
}

/// Memory of a view: rows of `width` bytes, `stride` bytes apart.
struct memory_rows {
    std::uintptr_t begin;
    std::uint64_t width, stride, rows;

    template <class V>
    explicit memory_rows(const V& v)
        : begin(reinterpret_cast<std::uintptr_t>(v.data())),
          width(static_cast<std::uint64_t>(v.extent(V::rank - 1)) * sizeof(typename V::value_type)),
          stride(static_cast<std::uint64_t>(v.row_stride()) * sizeof(typename V::value_type)),
          rows(static_cast<std::uint64_t>(v.rows())) {}
    bool empty() const { return width == 0 || rows == 0; }
    std::uintptr_t end() const { return begin + (rows - 1) * stride + width; }
};

/// Do the views share a byte? Column blocks of one matrix do not; rows with different strides count as sharing what
/// lies between them.
template <class V, class W>
bool overlap(const V& v, const W& w) {
    memory_rows a(v), b(w);
    if (a.empty() || b.empty() || a.end() <= b.begin || b.end() <= a.begin) return false;
    if (a.stride != b.stride || a.width > a.stride || b.width > a.stride || a.rows == 1 || b.rows == 1) return true;
    const std::uint64_t apart =
        a.begin <= b.begin ? (b.begin - a.begin) % a.stride : (a.stride - (a.begin - b.begin) % a.stride) % a.stride;
    return apart < a.width || apart + b.width > a.stride;
}
/// Are the views the same elements?
template <class V, class W>
bool same_memory(const V& v, const W& w) {
    return static_cast<const void*>(v.data()) == static_cast<const void*>(w.data()) &&
           std::is_same_v<typename V::value_type, typename W::value_type> && v.size() == w.size() &&
           v.extent(V::rank - 1) == w.extent(W::rank - 1) && (v.rows() <= 1 || v.row_stride() == w.row_stride());
}
/// Throws if `out` shares memory with `in`.
template <class V, class W>
void check_apart(const V& out, const W& in, const char* function, const char* argument) {
    require(!overlap(out, in), function, argument, "memory that no other argument uses", "an overlap");
}
/// Throws if `out` shares memory with `in`, unless they are the same elements.
template <class V, class W>
void check_same_or_apart(const V& out, const W& in, const char* function, const char* argument) {
    require(same_memory(out, in) || !overlap(out, in), function, argument,
            "the memory of an input, or memory that no other argument uses", "a partial overlap");
}

}  // namespace detail
}  // namespace gatefold::inline v0
