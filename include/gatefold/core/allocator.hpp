// Where memory comes from: two plain functions and a pointer, so that any allocator can be handed in.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <gatefold/core/index.hpp>
#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0 {

/// Every block that the library asks for begins at a multiple of this, on every target.
inline constexpr std::size_t memory_alignment = 64;

/// A source of host memory. `allocate(self, bytes, alignment)` returns nullptr when there is none to give;
/// `release(self, memory, bytes)` takes a block back.
struct allocator {
    void* self;
    void* (*allocate)(void* self, std::size_t bytes, std::size_t alignment);
    void (*release)(void* self, void* memory, std::size_t bytes);
};

namespace detail {

inline void* system_allocate(void*, std::size_t bytes, std::size_t alignment) {
    constexpr std::size_t huge_page = std::size_t{2} << 20;
    const bool huge = bytes >= 2 * huge_page;
    if (huge) alignment = huge_page;
    bytes = (bytes + alignment - 1) / alignment * alignment;
    void* memory = std::aligned_alloc(alignment, bytes);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    // Weights are read in streams of many megabytes: with 4 KiB pages the page walks alone cost a tenth of the
    // bandwidth.
    if (memory && huge) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return memory;
}
inline void system_release(void*, void* memory, std::size_t) { std::free(memory); }

}  // namespace detail

/// The process's own heap, large blocks on huge pages where the system grants them.
inline constexpr allocator system_allocator{nullptr, &detail::system_allocate, &detail::system_release};

}  // namespace gatefold::inline v0
