// Tensors in device memory, and copies between the two memories.
//
//     tensor (host) ── copy(ctx, to, from) ──> device_tensor ── forward, … ──> device_tensor ── copy ──> tensor
//     make_pinned   ── copy_async: enqueued, and the host goes on ──>
#pragma once

#include <type_traits>
#include <utility>

#include <gatefold/core/tensor.hpp>
#include <gatefold/cuda/device/context.cuh>
#include <gatefold/moe/weights.hpp>

namespace gatefold::inline v0 {

/// Elements in device memory, contiguous, row-major, 256-byte aligned, not initialised; move-only.
template <class T, int... E>
class basic_tensor<cuda, T, E...> : public detail::owned_elements<cuda, T, E...> {
public:
    basic_tensor() = default;
    /// Throws: argument_error for a negative extent, one that contradicts the type, or an overflowing product,
    ///         std::bad_alloc.
    GATEFOLD_INLINE explicit basic_tensor(const index_t (&extents)[sizeof...(E)], allocator from = device_allocator)
        : detail::owned_elements<cuda, T, E...>(extents, from) {}

    /// Sets every byte to zero, in the order of `stream`.
    GATEFOLD_INLINE void set_zero(cudaStream_t stream) {
        const auto bytes = static_cast<std::size_t>(this->size()) * sizeof(T);
        if (bytes > 0) detail::check(cudaMemsetAsync(this->data(), 0, bytes, stream), "set_zero");
    }
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

/// One side of a copy: memory that is where its type says. `stays`: host memory is read or written after the call.
template <backend B, class T, int... E>
void check_copy_side(const char* function, const char* argument, const basic_view<B, T, E...>& v, bool stays) {
    if (v.size() == 0) return;
    require(v.data() != nullptr, function, argument, "memory", "null");
    if constexpr (std::is_same_v<B, cuda>)
        on_cuda::check_any_device_pointer(function, argument, v.data());
    else if (stays)
        on_cuda::check_pinned_pointer(function, argument, v.data());
    else
        on_cuda::check_host_pointer(function, argument, v.data());
}

/// Enqueues the copy of all elements, row by row where there are gaps.
template <backend B, backend C, class T, int... D, int... E>
void enqueue_copy(const context<cuda>& ctx, const char* function, const basic_view<B, T, D...>& to,
                  const basic_view<C, const T, E...>& from, bool stays) {
    static_assert(sizeof...(D) == sizeof...(E), "gatefold::copy: both sides need the same number of dimensions");
    constexpr int rank = sizeof...(D);
    const on_cuda::call_scope scope(ctx, function);
    for (int d = 0; d < rank; ++d)
        require(to.extent(d) == from.extent(d), function, "from", to.extent(d), from.extent(d));
    check_copy_side(function, "to", to, stays);
    check_copy_side(function, "from", from, stays);
    const index_t columns = to.extent(rank - 1), rows = to.rows();
    if (rows == 0 || columns == 0) return;
    const auto bytes = [](index_t n) { return static_cast<std::size_t>(n) * sizeof(T); };
    if (to.is_contiguous() && from.is_contiguous())
        check(cudaMemcpyAsync(to.data(), from.data(), bytes(rows * columns), cudaMemcpyDefault, ctx.stream()),
              function);
    else
        check(cudaMemcpy2DAsync(to.data(), bytes(to.row_stride()), from.data(), bytes(from.row_stride()),
                                bytes(columns), static_cast<std::size_t>(rows), cudaMemcpyDefault, ctx.stream()),
              function);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// A tensor in pinned host memory, which copy_async overlaps with; one argument for each extent that is `dyn`.
///
/// Throws: as make_tensor does.
template <class T, int... E, class... N>
tensor<T, E...> make_pinned(N... extents) {
    static_assert(sizeof...(N) == detail::dynamic_extents<E...>,
                  "gatefold::make_pinned: give one argument for each extent that is dyn, and none for the others");
    index_t all[sizeof...(E)];
    detail::merge_extents<E...>(all, extents...);
    return tensor<T, E...>(all, pinned_allocator);
}

/// Copies elements between host and device, or within devices, in the order of the context's stream.
///
/// Where one side is host memory the call returns when the copy is done. Extents must agree.
/// Throws: argument_error for extents that differ, memory that is null or not where its type says, and a stream being
///         captured where one side is host memory (the capture goes on); cuda_error.
template <backend B, backend C, class T, int... D, int... E>
void copy(context<cuda>& ctx, const basic_view<B, T, D...>& to, const basic_view<C, const T, E...>& from) {
    constexpr bool waits = !std::is_same_v<B, cuda> || !std::is_same_v<C, cuda>;
    if constexpr (waits) {
        require(!ctx.is_captured(), "copy", "stream", "a stream that is not being captured, or copy_async",
                "one that is");
    }
    detail::enqueue_copy(ctx, "copy", to, from, false);
    if constexpr (waits) ctx.synchronize();
}
template <backend B, backend C, class T, int... D, int... E>
void copy(context<cuda>& ctx, const basic_view<B, T, D...>& to, const basic_view<C, T, E...>& from) {
    copy(ctx, to, basic_view<C, const T, E...>(from));
}
template <backend B, backend C, class T, int... D, int... E>
void copy(context<cuda>& ctx, basic_tensor<B, T, D...>& to, const basic_tensor<C, T, E...>& from) {
    copy(ctx, to.view(), from.view());
}

/// copy that returns as soon as it is enqueued, also into a graph; host memory must be pinned, and is the copy's until
/// the stream has passed it.
///
/// Throws: argument_error for extents that differ, memory that is null, pageable or not where its type says;
/// cuda_error.
template <backend B, backend C, class T, int... D, int... E>
void copy_async(context<cuda>& ctx, const basic_view<B, T, D...>& to, const basic_view<C, const T, E...>& from) {
    detail::enqueue_copy(ctx, "copy_async", to, from, true);
}
template <backend B, backend C, class T, int... D, int... E>
void copy_async(context<cuda>& ctx, const basic_view<B, T, D...>& to, const basic_view<C, T, E...>& from) {
    copy_async(ctx, to, basic_view<C, const T, E...>(from));
}
template <backend B, backend C, class T, int... D, int... E>
void copy_async(context<cuda>& ctx, basic_tensor<B, T, D...>& to, const basic_tensor<C, T, E...>& from) {
    copy_async(ctx, to.view(), from.view());
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// A parameter, owned or borrowed, to one that is owned.
template <class To, class From>
void copy_slot(context<cuda>& ctx, To& to, const From& from) {
    if constexpr (requires { from.view(); })
        copy(ctx, to.view(), from.view());
    else
        copy(ctx, to.view(), from);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Copies every parameter of a layer, controller state included, from weights or a view of them (a mapped file).
template <layer_type L, backend B, layer_weights W>
    requires(std::is_same_v<typename W::layer_type, L> && !requires(W w) { w.matrices; })
void copy(context<cuda>& ctx, weights<L, B>& to, const W& from) {
    const auto each = [&](const char*, auto& mine, const auto& theirs) { detail::copy_slot(ctx, mine, theirs); };
    for_each_parameter(each, to, from);
    for_each_buffer(each, to, from);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
