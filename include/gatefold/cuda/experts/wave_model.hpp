// Which kernel multiplies in a 16-bit layer: what each would take, as constant expressions over the layer's extents,
// the number of tokens and the device. No tuning files, nothing measured at run time.
//
//     waves = items of work / multiprocessors, rounded up
//     time  = launch + max(weights / rate of memory, waves · bytes of an item / rate of a multiprocessor)
//           + waves · sums of an item · time to deliver one
//
// All kernels add in the same order: the choice decides about time, never about bits.
#pragma once

#include <gatefold/core/index.hpp>
#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// The kernel of few rows: a strip of 16 weight rows and 8 rows for a warp, each with its share of a block's ring.
struct few_rows_shape {
    static constexpr int most_warps = 4, stages = 4, depth = 128, rows = 8;
    static constexpr int weight_bytes = depth * 32, row_bytes = rows * depth * 2,
                         place_bytes = weight_bytes + row_bytes;
    static constexpr int shared_bytes = most_warps * stages * place_bytes;
};

/// How a projection is cut: strips for warps, or tiles of rows x weight rows for blocks.
enum class arrangement { strips, tiles_of_64x64, tiles_of_64x256, tiles_of_128x256 };
/// Those of products with a list of tiles, whose experts fill the device together, and those of a single expert.
inline constexpr arrangement listed_arrangements[] = {arrangement::strips, arrangement::tiles_of_64x256,
                                                      arrangement::tiles_of_128x256};
inline constexpr arrangement single_arrangements[] = {arrangement::strips, arrangement::tiles_of_64x64,
                                                      arrangement::tiles_of_128x256};

/// Rows and weight rows of an item of work, and the shared memory of its block.
struct item_extents {
    int rows, weight_rows, shared_bytes;
};
constexpr item_extents extents_of(arrangement a) {
    switch (a) {
        case arrangement::strips:
            return {few_rows_shape::rows, 16, few_rows_shape::shared_bytes};
        case arrangement::tiles_of_64x64:
            return {64, 64, 6 * 64 * (64 + 64) * 2};
        case arrangement::tiles_of_64x256:
            return {64, 256, 3 * 64 * (64 + 256) * 2};
        default:
            return {128, 256, 3 * 64 * (128 + 256) * 2};
    }
}

/// What the choice knows of a device.
struct device_extents {
    int multiprocessors;
    int shared_bytes;  ///< that a block can be given
};
/// Blocks of that much shared memory on a multiprocessor. The system keeps 1 KiB of each, and a block can be given all
/// of a multiprocessor's memory but that.
constexpr int resident_blocks(int block_bytes, int shared_bytes) {
    constexpr int reserved = 1024;
    const int blocks = (shared_bytes + reserved) / (block_bytes + reserved);
    return blocks > 1 ? blocks : 1;
}

/// One projection of a call: `choices` experts of each of `tokens` tokens, `weight_rows` x `depth` weights per expert.
struct product_extents {
    index_t tokens;
    int choices, experts, weight_rows, depth;

    constexpr index_t pairs() const { return tokens * choices; }
    /// Distinct experts that tokens choose by chance: E (1 - (1 - k/E)^T).
    constexpr double visited() const {
        double none = 1, power = 1 - static_cast<double>(choices) / experts;
        for (index_t n = tokens; n > 0; n /= 2, power *= power)
            if (n % 2 != 0) none *= power;
        return experts * (1 - none);
    }
    /// Tiles that they make: every expert fills half of its last one.
    constexpr double tiles(int rows) const {
        if (experts == 1) return static_cast<double>(ceil_div(pairs(), index_t{rows}));
        const double v = visited(), mean = static_cast<double>(pairs()) / rows + v / 2;
        return mean > v ? mean : v;
    }
    constexpr double rows_of_expert() const { return static_cast<double>(pairs()) / visited(); }
};

/// The numbers of the model, in nanoseconds and bytes per nanosecond: those of an H200, fitted to its times of the
/// stages `experts` and `dense_ffn` (bench/results/nvidia-h200.md), which the model meets within 20 %.
struct device_rates {
    double launch = 3500;        ///< from the end of one kernel to work in the next
    double memory = 4400;        ///< weights from memory
    double multiprocessor = 70;  ///< what one multiprocessor draws into shared memory
    double together = 7400;      ///< what all of them draw
    double warp = 28;            ///< weights of one chain of mma.sync: 512 bytes in 33 cycles
    double sum = 0.15;           ///< activation, rounding and store of one sum
};

struct wave_count {
    double items;  ///< of work, expected
    int waves;     ///< items of the multiprocessor with most of them
};
constexpr wave_count waves_of(arrangement a, const product_extents& p, int multiprocessors) {
    const item_extents item = extents_of(a);
    const double items = p.tiles(item.rows) * ceil_div(p.weight_rows, item.weight_rows);
    const int whole = static_cast<int>(items / multiprocessors);
    return {items, static_cast<double>(whole) * multiprocessors < items ? whole + 1 : whole};
}

/// Nanoseconds of one projection.
constexpr double time_of(arrangement a, const product_extents& p, int multiprocessors, const device_rates& r = {}) {
    const auto least = [](double x, double y) { return x < y ? x : y; };
    const item_extents item = extents_of(a);
    const wave_count n = waves_of(a, p, multiprocessors);
    const double depth_bytes = 2.0 * p.depth, rows = least(p.rows_of_expert(), item.rows);
    double rate = least(r.multiprocessor, r.together / least(n.items, multiprocessors));
    double item_bytes = depth_bytes * (rows + item.weight_rows), delivery = 0;
    if (a == arrangement::strips) {
        // Warps of a multiprocessor share their rows by its cache, and their sums end beside other warps' copies.
        constexpr int most_warps = 8;
        rate = least(rate, r.warp * least(n.waves, most_warps));
        item_bytes = depth_bytes * item.weight_rows;
    } else {
        delivery = n.waves * r.sum * item.weight_rows * least(item.rows, (rows + 7) / 8 * 8);
    }
    const double drawn = n.waves * item_bytes / rate;
    const double read = p.visited() * p.weight_rows * depth_bytes / r.memory;
    return r.launch + (drawn > read ? drawn : read) + delivery;
}

/// How a projection of a single expert is cut: as is quickest among what the device has room for.
constexpr arrangement arrangement_of(const product_extents& p, const device_extents& d) {
    arrangement best = arrangement::strips;
    for (const arrangement a : single_arrangements)
        if (extents_of(a).shared_bytes <= d.shared_bytes &&
            time_of(a, p, d.multiprocessors) < time_of(best, p, d.multiprocessors))
            best = a;
    return best;
}

/// Warps of a block of the kernel of few rows: as few as give every item one at once, since they share a block's ring.
constexpr int few_rows_warps(index_t items, const device_extents& d) {
    const index_t blocks = index_t{d.multiprocessors} * resident_blocks(few_rows_shape::shared_bytes, d.shared_bytes);
    return items <= blocks ? 1 : items <= 2 * blocks ? 2 : few_rows_shape::most_warps;
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
