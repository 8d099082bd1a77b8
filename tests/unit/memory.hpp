// An allocator that counts, and fails when told to.
#pragma once

#include <cstddef>
#include <cstdlib>

#include <gatefold/core/allocator.hpp>

namespace tests {

/// Counts what is given and taken back; the request number `fails_at` (from 0) and all after it get nothing.
class counting_memory {
public:
    int given = 0, returned = 0, refused = 0, fails_at = -1;
    std::size_t bytes = 0;
    bool sizes_match = true;

    gatefold::allocator source() {
        return {this,
                [](void* self, std::size_t wanted, std::size_t alignment) -> void* {
                    auto& m = *static_cast<counting_memory*>(self);
                    if (m.fails_at >= 0 && m.given >= m.fails_at) {
                        ++m.refused;
                        return nullptr;
                    }
                    ++m.given;
                    m.bytes += wanted;
                    return std::aligned_alloc(alignment, (wanted + alignment - 1) / alignment * alignment);
                },
                [](void* self, void* memory, std::size_t size) {
                    auto& m = *static_cast<counting_memory*>(self);
                    ++m.returned;
                    m.sizes_match = m.sizes_match && m.bytes >= size;
                    m.bytes -= size;
                    std::free(memory);
                }};
    }
};

}  // namespace tests
