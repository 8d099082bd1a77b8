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

// ---- packed weights
//
//     W[n][k] ──> blocks of 8 strips ── [k/16][strip] ── 512 bytes: four 8x8 matrices of 128 contiguous bytes, in the
//     order (rows 0-7, k 0-7), (0-7, 8-15), (8-15, 0-7), (8-15, 8-15)
//
// A strip is 16 weight rows; the last block of an expert has fewer strips, k is padded to 16 with zeros. Any range of k
// of a block is contiguous, ldmatrix reads it without bank conflicts and needs no swizzle, in either role of mma.sync.
// Gated: rows 0-7 of a strip are gate rows, rows 8-15 the up rows of the same 8 outputs, so that both sums of an output
// land in one thread. The outputs of an 8-row group are permuted so that a thread ends with 8 consecutive ones.

inline constexpr int block_strips = 8;

/// The output of row n (0..7) of the 8-row group `group`, of `groups` in all: groups are taken four at a time (32
/// outputs, stores of 16 bytes), the rest two (8 bytes) and one (4 bytes) at a time.
GATEFOLD_HD constexpr int output_at(int group, int n, int groups) {
    const int full = groups / 4 * 4;
    int together = 4, base = group / 4 * 4;
    if (group >= full) {
        const bool in_pair = (groups & 2) != 0 && group < full + 2;
        together = in_pair ? 2 : 1;
        base = in_pair ? full : groups - 1;
    }
    return base * 8 + 2 * together * (n / 2) + 2 * (group - base) + n % 2;
}

/// Strips of the block that begins at strip `first`.
GATEFOLD_HD constexpr int live_strips(int first, int strips) {
    return strips - first < block_strips ? strips - first : block_strips;
}

/// The extents of one projection: N outputs, sums over K.
template <bool Gated, int N, int K>
struct projection_shape {
    static constexpr int padded = (K + 15) / 16 * 16;
    static constexpr int strips = Gated ? (N + 7) / 8 : (N + 15) / 16;
    static constexpr int groups = Gated ? strips : 2 * strips;  ///< of 8 outputs
    static constexpr index_t elements = index_t{strips} * 16 * padded;
};

/// The element of one expert at which packed row `row` keeps `k`.
GATEFOLD_HD constexpr index_t packed_at(int row, int k, int strips, int padded) {
    const int strip = row / 16, first = strip / block_strips * block_strips, r = row % 16, c = k % 16;
    const index_t piece =
        index_t{first} * (padded / 16) + index_t{k / 16} * live_strips(first, strips) + strip % block_strips;
    return piece * 256 + ((r / 8) * 2 + c / 8) * 64 + (r % 8) * 8 + c % 8;
}

/// The weight row behind packed row `row`, or -1 where it is padding: gate rows stand before up rows.
GATEFOLD_HD constexpr int weight_row_of(int row, bool gated, int outputs, int groups) {
    const int strip = row / 16, r = row % 16;
    const int n = output_at(gated ? strip : 2 * strip + r / 8, r % 8, groups);
    return n >= outputs ? -1 : gated && r >= 8 ? outputs + n : n;
}

// ---- which kernel

/// How many rows a tile has. The choice depends on the number of tokens alone, and every size gives the same bits.
enum class regime { few_rows, tiles_of_64, tiles_of_128 };

constexpr regime regime_of(index_t pairs, int experts, int shared_bytes) {
    if (pairs <= 2 * index_t{experts} || shared_bytes < 148 * 1024) return regime::few_rows;
    return pairs < 48 * index_t{experts} ? regime::tiles_of_64 : regime::tiles_of_128;
}
constexpr int rows_of_regime(regime r) { return r == regime::few_rows ? 8 : r == regime::tiles_of_64 ? 64 : 128; }

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
