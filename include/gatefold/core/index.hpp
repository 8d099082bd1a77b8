// Extents and the arithmetic on them: compile-time extents are int, products are 64 bits wide.
#pragma once

#include <cstdint>

#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0 {

using index_t = std::int64_t;

/// An extent that is known only at run time.
inline constexpr int dyn = -1;

/// a / b rounded up, for a >= 0 and b > 0.
template <class Int>
GATEFOLD_HD constexpr Int ceil_div(Int a, Int b) {
    return (a + b - 1) / b;
}

/// The smallest multiple of `step` that is not below `value`.
template <class Int>
GATEFOLD_HD constexpr Int round_up(Int value, Int step) {
    return ceil_div(value, step) * step;
}

}  // namespace gatefold::inline v0
