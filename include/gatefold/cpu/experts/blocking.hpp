// How the expert stage is cut, as constants that follow from the caches of a tier, the form of the kernels (type and
// order of sums) and the length of a sum (H or F). No choice here changes a bit.
//
//     first-level cache   sums of a block of rows; of hub layout, the piece of a panel that is packed at a time
//     second-level cache  the piece of a packed panel that all tiles of a block visit in turn
//
// The height of a tile, which follows from the registers, stands in the forms (cpu/gemm/gemm.hpp). The bench
// `blocking/...` sweeps alternatives and prints what this choice loses against the best of them.
#pragma once

#include <algorithm>
#include <cstddef>

#include <gatefold/core/allocator.hpp>
#include <gatefold/cpu/gemm/gemm.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Bytes of data cache that one core has.
struct cache_sizes {
    index_t first, second;
};

/// The least that processors of this tier come with: AVX-512 Skylake-SP and Zen 4, AMX Sapphire Rapids, the others
/// Zen 2, Gracemont and Neoverse N1.
inline constexpr cache_sizes amx_caches{index_t{48} << 10, index_t{2} << 20};
inline constexpr cache_sizes caches = GATEFOLD_AMX      ? amx_caches
                                      : GATEFOLD_AVX512 ? cache_sizes{index_t{32} << 10, index_t{1} << 20}
                                                        : cache_sizes{index_t{32} << 10, index_t{512} << 10};

/// How the sweep of a form is cut (cpu/experts/sweep.hpp).
template <class Form>
struct sweep_blocks {
    using T = typename Form::stream_type;
    using sum = typename Form::sum_type;
    static constexpr int W = lanes<sum>;
    static constexpr index_t step_bytes = index_t{W} * Form::step * static_cast<index_t>(sizeof(T));
    static constexpr index_t tile_bytes = index_t{Form::max_rows} * 2 * W * static_cast<index_t>(sizeof(sum));

    /// Tiles that pass over a panel while it is in the caches: their sums fill the first-level cache. Each fetches its
    /// share of the next panel, whole bytes per step, so that there cannot be many more.
    static constexpr int tiles = static_cast<int>((std::min)(caches.first / tile_bytes, step_bytes / 2));
    static constexpr int rows = tiles * Form::max_rows;
    /// Packed panels side by side where a block is one tile of that height.
    static constexpr int panels(int height) { return most_streams<Form>(height) / 2; }
    /// Bytes that a kernel for tiles of that height fetches ahead in packed streams: chains that restart take longer
    /// over a byte, and memory is best asked earlier once rows make them wait for arithmetic, or where streams of
    /// `steps` steps are so short that what comes between two panels is often.
    static constexpr index_t ahead(int height, index_t steps) {
        return (Form::block > 1 && height > 2) || steps * step_bytes <= 8192 ? 2048 : 1024;
    }
    /// Steps of a packed panel between two visits of a tile: equal pieces such that one and its part of a tile's rows
    /// are half the second-level cache at most.
    static constexpr index_t packed_depth(index_t steps) {
        constexpr index_t rows_bytes =
            index_t{Form::max_rows} * (Form::block > 1 ? 2 : 1) * static_cast<index_t>(sizeof(typename Form::row_type));
        constexpr index_t most = caches.second / 2 / (2 * step_bytes + rows_bytes);
        return round_up(ceil_div(steps, ceil_div(steps, most)), index_t{Form::block});
    }
    /// Steps of one stream that are packed at a time from hub layout, divided among the streams of a kernel call: half
    /// the first-level cache.
    static constexpr index_t hub_steps = caches.first / 2 / step_bytes;
    static constexpr std::size_t hub_bytes =
        round_up(static_cast<std::size_t>(hub_steps * step_bytes), memory_alignment);
    static constexpr std::size_t sum_bytes = std::size_t{rows} * 2 * W * sizeof(sum);
    static constexpr std::size_t bytes = hub_bytes + round_up(sum_bytes, memory_alignment);
};

/// How experts of many and of few rows take turns (cpu/experts/order.hpp).
template <class Form>
struct turn_blocks {
    static constexpr index_t step_bytes =
        index_t{lanes<typename Form::sum_type>} * Form::step * static_cast<index_t>(sizeof(typename Form::stream_type));

    /// Experts whose panels take turns in the first projection: their rows stay in the caches.
    static constexpr index_t together = 16;
    /// Bytes fetched ahead where experts take turns.
    static constexpr index_t ahead_of_turns = caches.second / 2;
    /// Weights of a call that the caches may hold from the last one: nothing to wait for.
    static constexpr index_t cached = 16 * caches.second;
};

/// How the sweep on a matrix unit is cut (cpu/experts/tiles.hpp): tiles of 16 rows, streams of 64 bytes per step.
struct unit_blocks {
    static constexpr int tiles = 18, rows = 16 * tiles;
    /// Panels that a piece of the rows passes over once the rows exceed the second-level cache; their sums are kept.
    static constexpr int group = 16;
    static constexpr std::size_t sum_bytes = std::size_t{group} * rows * 32 * sizeof(float);
    static_assert(sum_bytes < static_cast<std::size_t>(amx_caches.second) / 3);
    /// Bytes of packed rows from which on panels are taken in groups: what is left of the second-level cache beside
    /// sums and streams.
    static constexpr index_t rows_in_cache = amx_caches.second * 3 / 5;
    /// Rows whose products with a panel take as long as the panel takes to come from memory: a tile of 1 KiB some 200
    /// cycles, a product with tiles from the first-level cache 20.
    static constexpr index_t ridge = 160;
    /// Steps of a piece: two streams of it are a third of the first-level cache, two tiles of rows another.
    static constexpr index_t piece = amx_caches.first / 3 / (2 * 64);
    static constexpr std::size_t hub_bytes = std::size_t{4 * piece} * 64;
    static constexpr std::size_t bytes = hub_bytes + sum_bytes;
};

/// Rows whose products with a panel take as long as the panel takes to come from memory: 64 bytes are some seven
/// cycles, which is seven multiply-adds of the widest registers and two of the others of half the width.
template <class Form>
constexpr index_t ridge_rows() {
    using sum = typename Form::sum_type;
    constexpr index_t step_bytes = index_t{lanes<sum>} * Form::step * sizeof(typename Form::stream_type);
    if constexpr (Form::by_tiles)
        return unit_blocks::ridge;
    else
        return 7 * step_bytes / static_cast<index_t>(lanes<sum> * sizeof(sum)) /
               (Form::widens && Form::step == 2 ? 2 : 1);
}
template <class Form>
inline constexpr index_t ridge_of = ridge_rows<Form>();

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
