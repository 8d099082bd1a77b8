// Carving one block of workspace into the arrays of a call: the same description counts the bytes and hands them out.
#pragma once

#include <cstddef>

#include <gatefold/core/allocator.hpp>
#include <gatefold/core/index.hpp>
#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0 {

/// Hands out aligned arrays one after another; with a null base it only counts, so that
/// `layout(carver{nullptr})` tells how many bytes `layout(carver{memory})` needs.
class carver {
public:
    GATEFOLD_INLINE constexpr explicit carver(std::byte* base) : base_(base) {}

    /// `count` elements of T at a multiple of 64 bytes.
    template <class T>
    GATEFOLD_INLINE constexpr T* take(index_t count) {
        const std::size_t at = used_;
        used_ = round_up(used_ + static_cast<std::size_t>(count) * sizeof(T), memory_alignment);
        return base_ ? reinterpret_cast<T*>(base_ + at) : nullptr;
    }
    GATEFOLD_INLINE constexpr std::size_t used() const { return used_; }

private:
    std::byte* base_;
    std::size_t used_ = 0;
};

}  // namespace gatefold::inline v0
