// Owned host memory: aligned, move-only, returned to the allocator it came from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

#include <gatefold/core/allocator.hpp>
#include <gatefold/core/error.hpp>
#include <gatefold/core/index.hpp>
#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0 {

/// `size()` elements of type T, not initialised, at a multiple of 64 bytes.
///
/// Throws: argument_error for a negative count or one whose bytes exceed the address space, std::bad_alloc when the
///         allocator has none.
template <class T>
    requires(std::is_trivially_copyable_v<T>)
class buffer {
public:
    buffer() = default;
    GATEFOLD_INLINE explicit buffer(index_t count, allocator from = system_allocator) : size_(count), from_(from) {
        constexpr index_t most = (std::numeric_limits<index_t>::max)() / static_cast<index_t>(2 * sizeof(T));
        require(count >= 0 && count <= most, "buffer", "count", "a number of elements that fits memory", count);
        if (count == 0) return;
        data_ = static_cast<T*>(from_.allocate(from_.self, bytes(), memory_alignment));
        if (!data_) GATEFOLD_THROW(std::bad_alloc());
    }
    GATEFOLD_INLINE buffer(buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)), from_(other.from_) {}
    GATEFOLD_INLINE buffer& operator=(buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(from_, other.from_);
        return *this;
    }
    GATEFOLD_INLINE ~buffer() {
        if (data_) from_.release(from_.self, data_, bytes());
    }

    GATEFOLD_INLINE T* data() const { return data_; }
    GATEFOLD_INLINE index_t size() const { return size_; }
    GATEFOLD_INLINE std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(T); }

private:
    T* data_ = nullptr;
    index_t size_ = 0;
    allocator from_ = system_allocator;
};

}  // namespace gatefold::inline v0
