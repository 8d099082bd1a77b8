// Tensors in device memory, and copies between the two memories.
//
//     tensor (host) ── copy(ctx, to, from) ──> device_tensor ── forward, … ──> device_tensor ── copy ──> tensor
#pragma once

#include <type_traits>
#include <utility>

#include <gatefold/core/tensor.hpp>
#include <gatefold/cuda/context.cuh>
#include <gatefold/moe/weights.hpp>

namespace gatefold::inline v0 {

/// Elements in device memory, contiguous, row-major, 256-byte aligned, not initialised; move-only.
template <class T, int... E>
class basic_tensor<cuda, T, E...> {
public:
    using backend_type = cuda;
    using value_type = T;
    static constexpr int rank = sizeof...(E);

    basic_tensor() = default;
    /// Throws: argument_error for a negative extent, one that contradicts the type, or an overflowing product,
    ///         std::bad_alloc.
    GATEFOLD_INLINE explicit basic_tensor(const index_t (&extents)[sizeof...(E)], allocator from = device_allocator)
        : memory_(detail::checked_size<E...>(extents, "tensor"), from) {
        for (int d = 0; d < rank; ++d) extents_[d] = extents[d];
    }
    GATEFOLD_INLINE basic_tensor(basic_tensor&& other) noexcept : memory_(std::move(other.memory_)) {
        for (int d = 0; d < rank; ++d) extents_[d] = std::exchange(other.extents_[d], 0);
    }
    GATEFOLD_INLINE basic_tensor& operator=(basic_tensor&& other) noexcept {
        memory_ = std::move(other.memory_);
        std::swap(extents_, other.extents_);
        return *this;
    }

    /// A pointer to device memory.
    GATEFOLD_INLINE T* data() const { return memory_.data(); }
    GATEFOLD_INLINE index_t extent(int d) const { return extents_[d]; }
    GATEFOLD_INLINE index_t size() const { return memory_.size(); }

    GATEFOLD_INLINE basic_view<cuda, T, E...> view() { return {memory_.data(), extents_}; }
    GATEFOLD_INLINE basic_view<cuda, const T, E...> view() const { return {memory_.data(), extents_}; }
    GATEFOLD_INLINE operator basic_view<cuda, T, E...>() { return view(); }
    GATEFOLD_INLINE operator basic_view<cuda, const T, E...>() const { return view(); }

    /// Sets every byte to zero, in the order of `stream`.
    GATEFOLD_INLINE void set_zero(cudaStream_t stream) {
        if (size() > 0) detail::check(cudaMemsetAsync(memory_.data(), 0, memory_.bytes(), stream), "set_zero");
    }

private:
    buffer<T> memory_;
    index_t extents_[sizeof...(E)] = {};
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <class T, int... E>
struct static_tensor<basic_tensor<cuda, T, E...>> {
    static basic_tensor<cuda, T, E...> make(context<cuda>& ctx) {
        static_assert(dynamic_extents<E...> == 0);
        basic_tensor<cuda, T, E...> t({E...}, ctx.memory());
        const device_scope scope(ctx.device());
        t.set_zero(ctx.stream());
        return t;
    }
};

template <class V>
inline constexpr bool is_on_device = std::is_same_v<typename V::backend_type, cuda>;

/// Copies rows of `columns` elements; waits where host memory takes part, which the caller may use right after.
template <class T>
void copy_rows(context<cuda>& ctx, T* to, index_t to_stride, const T* from, index_t from_stride, index_t rows,
               index_t columns, bool waits) {
    if (rows == 0 || columns == 0) return;
    const device_scope scope(ctx.device());
    const auto bytes = [](index_t n) { return static_cast<std::size_t>(n) * sizeof(T); };
    if (to_stride == columns && from_stride == columns)
        check(cudaMemcpyAsync(to, from, bytes(rows * columns), cudaMemcpyDefault, ctx.stream()), "copy");
    else
        check(cudaMemcpy2DAsync(to, bytes(to_stride), from, bytes(from_stride), bytes(columns),
                                static_cast<std::size_t>(rows), cudaMemcpyDefault, ctx.stream()),
              "copy");
    if (waits) ctx.synchronize();
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Copies elements between host and device, or within the device, in the order of the context's stream.
///
/// Where one side is host memory the call returns when the copy is done. Extents must agree.
/// Throws: argument_error for extents that differ, cuda_error.
template <backend B, backend C, class T, int... D, int... E>
void copy(context<cuda>& ctx, const basic_view<B, T, D...>& to, const basic_view<C, const T, E...>& from) {
    static_assert(sizeof...(D) == sizeof...(E), "gatefold::copy: both sides need the same number of dimensions");
    constexpr int rank = sizeof...(D);
    for (int d = 0; d < rank; ++d)
        require(to.extent(d) == from.extent(d), "copy", "from", to.extent(d), from.extent(d));
    const index_t columns = to.extent(rank - 1), rows = to.rows();
    detail::copy_rows(ctx, to.data(), rank == 1 ? columns : to.row_stride(), from.data(),
                      rank == 1 ? columns : from.row_stride(), rows, columns,
                      !std::is_same_v<B, cuda> || !std::is_same_v<C, cuda>);
}
template <backend B, backend C, class T, int... D, int... E>
void copy(context<cuda>& ctx, const basic_view<B, T, D...>& to, const basic_view<C, T, E...>& from) {
    copy(ctx, to, basic_view<C, const T, E...>(from));
}
template <backend B, backend C, class T, int... D, int... E>
void copy(context<cuda>& ctx, basic_tensor<B, T, D...>& to, const basic_tensor<C, T, E...>& from) {
    copy(ctx, to.view(), from.view());
}

/// Copies every parameter of a layer, controller state included.
template <layer_type L, backend B, backend C>
void copy(context<cuda>& ctx, weights<L, B>& to, const weights<L, C>& from) {
    const auto each = [&](const char*, auto& mine, const auto& theirs) { copy(ctx, mine, theirs); };
    for_each_parameter(each, to, from);
    for_each_buffer(each, to, from);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
