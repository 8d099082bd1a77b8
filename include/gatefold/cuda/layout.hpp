// The numbers behind the CUDA kernels that need no device: which tile size a call takes, how long its tile list can be,
// where the packed weights stand. Constant expressions, tested on the host.
#pragma once

#include <cstdint>

#include <gatefold/core/index.hpp>
#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// The least number of bits that can tell n values apart, at least 1.
constexpr int bits_for(int n) {
    int bits = 1;
    while ((std::int64_t{1} << bits) < n) ++bits;
    return bits;
}
/// The same as a constant: device code calls no host function, not even in a constant expression.
template <int N>
inline constexpr int bits_of = bits_for(N);

/// Tiles of at most `rows` rows that `pairs` pairs on `experts` experts can make: every expert rounds up once.
constexpr index_t most_tiles(index_t pairs, int experts, int rows) {
    return pairs / rows + (pairs < experts ? pairs : experts);
}

/// Heavier experts come first in the tile list; 32 classes, exact up to 15 tiles, then two per octave.
GATEFOLD_HD constexpr int weight_class(int tiles) {
    if (tiles < 16) return tiles;
    int log = 4;
    while (tiles >> (log + 1)) ++log;
    const int c = 16 + (log - 4) * 2 + (tiles >> (log - 1) & 1);
    return c < 31 ? c : 31;
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
