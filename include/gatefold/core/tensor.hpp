// An owning tensor: a buffer with extents. Extents known at compile time are part of the type.
#pragma once

#include <cstring>
#include <limits>
#include <utility>

#include <gatefold/core/buffer.hpp>
#include <gatefold/core/context.hpp>
#include <gatefold/core/view.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// The product of extents, checked against negative ones, those that the type knows, and overflow.
template <int... E>
index_t checked_size(const index_t (&extents)[sizeof...(E)], const char* function) {
    const int known[] = {E...};
    index_t n = 1;
    for (std::size_t d = 0; d < sizeof...(E); ++d) {
        require(extents[d] >= 0, function, "extents", "values of zero or more", extents[d]);
        require(known[d] == dyn || extents[d] == known[d], function, "extents", known[d], extents[d]);
        require(extents[d] == 0 || n <= (std::numeric_limits<index_t>::max)() / extents[d], function, "extents",
                "a product below 2^63", extents[d]);
        n *= extents[d];
    }
    return n;
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

// Tensors are the same types in every tier, and so is what they are made of.
namespace gatefold::inline v0::detail {

/// Elements with their extents, contiguous and row-major in memory of the backend; move-only.
template <backend B, class T, int... E>
class owned_elements {
public:
    using backend_type = B;
    using value_type = T;
    static constexpr int rank = sizeof...(E);

    owned_elements() = default;
    GATEFOLD_INLINE owned_elements(const index_t (&extents)[sizeof...(E)], allocator from)
        : memory_(checked_size<E...>(extents, "tensor"), from) {
        for (int d = 0; d < rank; ++d) extents_[d] = extents[d];
    }
    // What was moved from is empty, its extents with it.
    GATEFOLD_INLINE owned_elements(owned_elements&& other) noexcept : memory_(std::move(other.memory_)) {
        for (int d = 0; d < rank; ++d) extents_[d] = std::exchange(other.extents_[d], 0);
    }
    GATEFOLD_INLINE owned_elements& operator=(owned_elements&& other) noexcept {
        memory_ = std::move(other.memory_);
        std::swap(extents_, other.extents_);
        return *this;
    }

    /// A pointer to memory of the backend.
    GATEFOLD_INLINE T* data() const { return memory_.data(); }
    GATEFOLD_INLINE index_t extent(int d) const { return extents_[d]; }
    GATEFOLD_INLINE index_t size() const { return memory_.size(); }

    GATEFOLD_INLINE basic_view<B, T, E...> view() { return {memory_.data(), extents_}; }
    GATEFOLD_INLINE basic_view<B, const T, E...> view() const { return {memory_.data(), extents_}; }
    GATEFOLD_INLINE operator basic_view<B, T, E...>() { return view(); }
    GATEFOLD_INLINE operator basic_view<B, const T, E...>() const { return view(); }

private:
    buffer<T> memory_;
    index_t extents_[sizeof...(E)] = {};
};

}  // namespace gatefold::inline v0::detail

namespace gatefold::inline v0 {

template <backend B, class T, int... E>
class basic_tensor;

/// Elements in host memory, contiguous, row-major, 64-byte aligned, not initialised; move-only.
template <class T, int... E>
class basic_tensor<cpu, T, E...> : public detail::owned_elements<cpu, T, E...> {
public:
    basic_tensor() = default;
    /// Throws: argument_error for a negative extent, one that contradicts the type, or an overflowing product,
    ///         std::bad_alloc.
    GATEFOLD_INLINE explicit basic_tensor(const index_t (&extents)[sizeof...(E)], allocator from = system_allocator)
        : detail::owned_elements<cpu, T, E...>(extents, from) {}

    template <class... Place>
        requires(sizeof...(Place) == sizeof...(E))
    GATEFOLD_INLINE T& operator()(Place... place) { return this->view()(place...); }
    template <class... Place>
        requires(sizeof...(Place) == sizeof...(E))
    GATEFOLD_INLINE const T& operator()(Place... place) const { return this->view()(place...); }

    /// Sets every byte to zero, which is the value 0 of every scalar type.
    GATEFOLD_INLINE void set_zero() {
        const auto bytes = static_cast<std::size_t>(this->size()) * sizeof(T);
        if (bytes > 0) std::memset(static_cast<void*>(this->data()), 0, bytes);
    }
};

template <class T, int... E>
using tensor = basic_tensor<cpu, T, E...>;
template <class T, int... E>
using device_tensor = basic_tensor<cuda, T, E...>;

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <int... E>
constexpr int dynamic_extents = ((E == dyn ? 1 : 0) + ... + 0);

/// Fills in the compile-time extents and takes the others in order.
template <int... E, class... N>
void merge_extents(index_t (&extents)[sizeof...(E)], N... given) {
    const int fixed[] = {E...};
    const index_t values[sizeof...(N) + 1] = {static_cast<index_t>(given)..., 0};
    int next = 0;
    for (int d = 0; d < int{sizeof...(E)}; ++d) extents[d] = fixed[d] == dyn ? values[next++] : fixed[d];
}

template <class Tensor>
struct static_tensor;
template <class T, int... E>
struct static_tensor<basic_tensor<cpu, T, E...>> {
    static basic_tensor<cpu, T, E...> make(context<cpu>& ctx) {
        static_assert(dynamic_extents<E...> == 0);
        basic_tensor<cpu, T, E...> t({E...}, ctx.memory());
        t.set_zero();
        return t;
    }
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// A tensor in the context's memory; one argument for each extent that is `dyn`: make_tensor<float, dyn, 64>(ctx, 10).
template <class T, int... E, backend B, class... N>
basic_tensor<B, T, E...> make_tensor(context<B>& ctx, N... extents) {
    static_assert(sizeof...(N) == detail::dynamic_extents<E...>,
                  "gatefold::make_tensor: give one argument for each extent that is dyn, and none for the others");
    index_t all[sizeof...(E)];
    detail::merge_extents<E...>(all, extents...);
    return basic_tensor<B, T, E...>(all, ctx.memory());
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
