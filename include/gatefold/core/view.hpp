// A view: a pointer with extents, borrowed. The memory space is part of the type, known extents are checked by the
// compiler, rows may lie further apart than they are long.
//
//     view<float, dyn, 4096>   tokens x hidden on the host      device_view<...>   the same in device memory
#pragma once

#include <cstddef>
#include <type_traits>

#include <gatefold/core/backend.hpp>
#include <gatefold/core/index.hpp>
#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0 {

/// Elements of type T with extents E..., of which `dyn` ones are known at run time only.
///
/// Layout: row-major; the last dimension is contiguous, `row_stride()` elements lie between consecutive rows of the
/// last two dimensions, outer dimensions follow without gaps. Trivially copyable; an argument of kernels.
template <backend B, class T, int... E>
    requires(sizeof...(E) >= 1 && ((E == dyn || E >= 0) && ...))
class basic_view {
public:
    using backend_type = B;
    using element_type = T;
    using value_type = std::remove_cv_t<T>;
    static constexpr int rank = sizeof...(E);

    constexpr basic_view() = default;

    /// Views memory with the given extents; those known at compile time must be repeated truthfully.
    GATEFOLD_HD GATEFOLD_INLINE constexpr basic_view(T* data, const index_t (&extents)[sizeof...(E)],
                                                     index_t row_stride = -1)
        : data_(data) {
        for (int d = 0; d < rank; ++d) extents_[d] = extents[d];
        row_stride_ = row_stride < 0 ? extents_[rank - 1] : row_stride;
    }

    /// Converts from a view of at least as much knowledge, adding const where asked.
    template <class U, int... D>
        requires(sizeof...(D) == sizeof...(E) && std::is_convertible_v<U (*)[], T (*)[]> &&
                 ((D == E || E == dyn) && ...))
    GATEFOLD_HD GATEFOLD_INLINE constexpr basic_view(const basic_view<B, U, D...>& other)
        : data_(other.data()), row_stride_(other.row_stride()) {
        for (int d = 0; d < rank; ++d) extents_[d] = other.extent(d);
    }

    /// The extent of dimension d at compile time, `dyn` where unknown.
    static constexpr int static_extent(int d) {
        const int all[] = {E...};
        return all[d];
    }

    GATEFOLD_HD GATEFOLD_INLINE constexpr T* data() const { return data_; }
    GATEFOLD_HD GATEFOLD_INLINE constexpr index_t extent(int d) const { return extents_[d]; }
    GATEFOLD_HD GATEFOLD_INLINE constexpr index_t row_stride() const { return row_stride_; }
    GATEFOLD_HD GATEFOLD_INLINE constexpr bool is_contiguous() const {
        return rank == 1 || row_stride_ == extents_[rank - 1];
    }

    /// Number of elements.
    GATEFOLD_HD GATEFOLD_INLINE constexpr index_t size() const {
        index_t n = 1;
        for (int d = 0; d < rank; ++d) n *= extents_[d];
        return n;
    }
    GATEFOLD_HD GATEFOLD_INLINE constexpr bool empty() const { return size() == 0; }

    /// The element at the given place; places are not checked.
    template <class... Place>
        requires(sizeof...(Place) == sizeof...(E))
    GATEFOLD_HD GATEFOLD_INLINE constexpr T& operator()(Place... place) const {
        const index_t at[] = {static_cast<index_t>(place)...};
        index_t row = 0;
        for (int d = 0; d + 1 < rank; ++d) row = row * extents_[d] + at[d];
        return data_[row * (rank == 1 ? 0 : row_stride_) + at[rank - 1]];
    }
    GATEFOLD_HD GATEFOLD_INLINE constexpr T& operator[](index_t i) const requires(sizeof...(E) == 1) {
        return data_[i];
    }

    /// Pointer to row r, rows of all outer dimensions counted through.
    GATEFOLD_HD GATEFOLD_INLINE constexpr T* row(index_t r) const { return data_ + r * (rank == 1 ? 0 : row_stride_); }
    /// Number of rows: the product of all extents but the last.
    GATEFOLD_HD GATEFOLD_INLINE constexpr index_t rows() const {
        index_t n = 1;
        for (int d = 0; d + 1 < rank; ++d) n *= extents_[d];
        return n;
    }

    GATEFOLD_HD GATEFOLD_INLINE constexpr T* begin() const requires(sizeof...(E) == 1) { return data_; }
    GATEFOLD_HD GATEFOLD_INLINE constexpr T* end() const requires(sizeof...(E) == 1) { return data_ + extents_[0]; }

    /// Rows [first, first + count) of the outermost dimension.
    GATEFOLD_HD GATEFOLD_INLINE constexpr auto slice(index_t first, index_t count) const {
        return sliced<E...>(first, count);
    }

private:
    template <int First, int... Rest>
    GATEFOLD_HD GATEFOLD_INLINE constexpr basic_view<B, T, dyn, Rest...> sliced(index_t first, index_t count) const {
        index_t extents[sizeof...(E)];
        for (int d = 0; d < rank; ++d) extents[d] = extents_[d];
        index_t step = rank == 1 ? 1 : row_stride_;
        for (int d = 1; d + 1 < rank; ++d) step *= extents_[d];
        extents[0] = count;
        return basic_view<B, T, dyn, Rest...>(data_ + first * step, extents, row_stride_);
    }

    T* data_ = nullptr;
    index_t extents_[sizeof...(E)] = {};
    index_t row_stride_ = 0;
};

template <class T, int... E>
using view = basic_view<cpu, T, E...>;
template <class T, int... E>
using device_view = basic_view<cuda, T, E...>;

}  // namespace gatefold::inline v0
