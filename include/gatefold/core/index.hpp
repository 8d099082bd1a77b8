// Extents and the arithmetic on them: compile-time extents are int, products are 64 bits wide.
#pragma once

#include <cstdint>

#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0 {

using index_t = std::int64_t;

/// An extent that is known only at run time.
inline constexpr int dyn = -1;

/// a / b rounded up, for a >= 0 and b > 0.
template <class I>
GATEFOLD_HD constexpr I ceil_div(I a, I b) {
    return (a + b - 1) / b;
}

/// The smallest multiple of `step` that is not below `value`.
template <class I>
GATEFOLD_HD constexpr I round_up(I value, I step) {
    return ceil_div(value, step) * step;
}

}  // namespace gatefold::inline v0
