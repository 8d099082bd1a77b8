// The sweep of cpu/sparse/sweep.hpp on a matrix unit: the stored blocks of a panel pass under one or two tiles of rows
// while their sums stay in the unit. order::portable of bf16, the bits of every other sweep.
#pragma once

#include <cstddef>
#include <cstring>

#include <gatefold/cpu/experts/tiles.hpp>
#include <gatefold/cpu/sparse/sweep.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Multiplies the stored blocks of panels [p0, p1) with all rows of an expert, on a unit. Of each panel the first pass
/// fetches ahead; the others find it in the second-level cache.
template <class Unit, bool Skips, class Done>
GATEFOLD_NOINLINE void sweep_sparse_tiles(Unit& unit, const square_tiles& tiles, const bf16* rows, index_t all_steps,
                                          const sparse_source<bf16, Skips>& source, index_t p0, index_t p1,
                                          std::byte* scratch, const Done& done) {
    using form = tile_form<Unit>;
    constexpr index_t step_elements = 32, depth = sparse_depth / form::step;
    constexpr page_lookahead nothing_ahead{nullptr, 0, 0, 0, 0};
    if (p0 == p1) return;
    const bool skip = zeros_change_nothing<form>(rows, tiles.rows * all_steps * form::step, *source.matrix);
    bf16* nothing = reinterpret_cast<bf16*>(scratch);  // a block of zeros
    if (!skip) std::memset(scratch, 0, sizeof(bf16) * static_cast<std::size_t>(2 * depth * step_elements));
    float* sums = reinterpret_cast<float*>(scratch + sweep_blocks<form>::hub_bytes);

    // As in cpu/experts/tiles.hpp: one shape, in which a shorter tile beside others has 16 rows.
    const int shape = tiles.tiles == 1 ? static_cast<int>(tiles.rows) : 16;
    unit.configure({shape, shape, shape, shape, shape, 16, 16, 16});
    for (index_t p = p0; p < p1; ++p) {
        const index_t first = source.panels[p], last = source.panels[p + 1];
        const index_t stream = stream_of(source.runs + first, last - first, step_elements);
        for (index_t t = 0; t < tiles.tiles; t += 2) {
            const bool two = t + 1 < tiles.tiles;
            const index_t r = tiles.begin(t), r1 = tiles.begin(t + 1);
            const int height = static_cast<int>(r1 - r), other = two ? static_cast<int>(tiles.begin(t + 2) - r1) : 0;
            const bf16 *a0 = rows + 2 * r * all_steps, *a1 = rows + 2 * r1 * all_steps;
            const auto add = [&](index_t s0, index_t steps, const bf16* b, index_t apart, index_t distance) {
                if (two)
                    add_two_tiles(unit, steps, a0 + 2 * s0 * height, a1 + 2 * s0 * other, other, b, apart, distance,
                                  nothing_ahead);
                else
                    add_tile<2>(unit, steps, a0 + 2 * s0 * height, height, b, apart, distance, nothing_ahead);
            };
            const auto add_nothing = [&](index_t from, index_t to) {
                for (index_t s = from; s < to; s += depth) add(s, depth, nothing, depth * step_elements, 0);
            };
            unit.template zero<0>();
            unit.template zero<1>();
            unit.template zero<2>();
            unit.template zero<3>();
            index_t reached = 0;
            for (index_t i = first; i < last; ++i) {
                const sparse_run& run = source.runs[i];
                if (!skip) add_nothing(reached, run.step);
                reached = run.step + run.steps;
                add(run.step, run.steps, source.data + run.offset, stream, t == 0 ? 2048 : 0);
            }
            if (!skip) add_nothing(reached, all_steps);
            constexpr index_t row = 32, bytes = row * static_cast<index_t>(sizeof(float));
            unit.template store<0>(sums, bytes);
            unit.template store<1>(sums + 16, bytes);
            if (two) {
                unit.template store<2>(sums + 16 * row, bytes);
                unit.template store<3>(sums + 16 * row + 16, bytes);
            }
            done(p, r, height, sums, row);
            if (two) done(p, r1, other, sums + 16 * row, row);
        }
    }
    unit.release();
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
