// One expert's panels against one expert's rows: the loop nest around the micro-kernels.
//
//     rows in tiles [step][R] ─┐
//     panels, packed or in hub layout ─┴─ block of tiles × panel × piece of k ──> sums in L1 ──> done(tile)
//
// Few rows: two panels side by side, each stream prefetched a little ahead (the bandwidth of memory). More: one panel,
// all tiles of the block in turn, each fetching its share of the next panel.
#pragma once

#include <cstddef>

#include <gatefold/cpu/experts/blocking.hpp>
#include <gatefold/cpu/experts/fetch.hpp>
#include <gatefold/cpu/experts/layout.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// The panels of one projection of one expert: packed in memory, or rows in hub layout.
template <class T>
struct panel_source {
    const T* packed;  ///< null: from `rows`
    const T* then;    ///< what is read after the last panel, as packed or the first row of a panel
    index_t stream;
    panel_rows<T> rows;
    panel_fetch* fetch = nullptr;  ///< where experts take turns: what calls fetch, in the place of `then`
};

/// Asks for what the first kernel call over these panels begins with, where few rows take two panels side by side.
template <class T>
GATEFOLD_INLINE void fetch_beginning(const panel_source<T>& source) {
    for (int j = 0; source.packed && j < 4; ++j)
        for (index_t byte = 0; byte < 1024; byte += 64)
            prefetch<false>(reinterpret_cast<const char*>(source.packed + j * source.stream) + byte);
}

/// For few rows: the sums of a panel straight from hub layout. Returns the steps that are done: all where the form pads
/// rows, otherwise as far as whole squares reach; none where the matrix has too few rows.
template <class Form>
GATEFOLD_NOINLINE index_t turn_rows(const panel_source<typename Form::stream_type>& source, index_t panel, bool last,
                                    int height, index_t steps, const typename Form::row_type* rows,
                                    typename Form::sum_type* sums) {
    using sum = typename Form::sum_type;
    constexpr int W = lanes<sum>;
    const auto& from = source.rows;
    if (Form::padding == 1) steps = from.columns / turned_steps<Form> * turned_steps<Form>;
    if (height > few_rows || from.end < W || steps == 0) return 0;
    for (int half = 0; half < 2; ++half) {
        const index_t there = from.template there<W>(panel, half), missing = there < W ? W - there : 0;
        sum* to = sums + half * W;
        if (there > 0) {
            // Where rows are missing at the end, as many before the half take part, and the sums are moved.
            const auto* begin = from.template row<W>(panel, half) - missing * from.columns;
            const auto* next = reinterpret_cast<const char*>(half == 0 && from.template there<W>(panel, 1) > 0
                                                                 ? from.template row<W>(panel, 1)
                                                             : last ? source.then
                                                                    : from.template row<W>(panel + 1, 0));
            const auto multiply = rows_kernel_for<Form>(height);
            if constexpr (Form::flushes) {
                const flush_subnormals mode;
                multiply(steps, rows, begin, from.columns, to, 2 * W, next);
            } else {
                multiply(steps, rows, begin, from.columns, to, 2 * W, next);
            }
        }
        if (missing > 0)
            for (int i = 0; i < height; ++i, to += 2 * W)
                for (int j = 0; j < W; ++j) to[j] = j < there ? to[j + missing] : sum{0};
    }
    return steps;
}

/// Multiplies panels [p0, p1) with all rows of an expert. done(panel, first row, height, sums, distance of rows in
/// sums) gets each finished tile of a panel.
template <class Form, class Done>
GATEFOLD_NOINLINE void sweep(const row_tiles& tiles, const typename Form::row_type* rows, index_t all_steps,
                             const panel_source<typename Form::stream_type>& source, index_t p0, index_t p1,
                             std::byte* scratch, const Done& done) {
    using blocks = sweep_blocks<Form>;
    using T = typename Form::stream_type;
    using sum = typename Form::sum_type;
    constexpr int W = lanes<sum>;
    constexpr index_t row_elements = Form::block > 1 ? 2 : 1;  // of a packed row, per step
    constexpr index_t step_elements = W * Form::step, step_bytes = step_elements * static_cast<index_t>(sizeof(T));
    T* here = reinterpret_cast<T*>(scratch);
    sum* sums = reinterpret_cast<sum*>(scratch + blocks::hub_bytes);

    for (index_t t0 = 0; t0 < tiles.tiles; t0 += blocks::tiles) {
        const index_t t1 = t0 + blocks::tiles < tiles.tiles ? t0 + blocks::tiles : tiles.tiles, r0 = tiles.begin(t0);
        const bool alone = t1 - t0 == 1 && !source.fetch;
        const int together = alone && source.packed ? blocks::panels(static_cast<int>(tiles.begin(t1) - r0)) : 1;
        for (index_t p = p0; p < p1;) {
            const int panels = p + together <= p1 ? together : 1;
            const index_t row = index_t{panels} * 2 * W;
            // The last steps of panels side by side fetch from what comes next, and are a call of their own.
            const index_t distance = blocks::ahead(static_cast<int>(tiles.begin(t0 + 1) - r0), all_steps);
            const index_t last_steps = panels == 2 ? distance / step_bytes : 0;
            const index_t depth = !source.packed            ? blocks::hub_steps / (2 * panels)
                                  : !alone                  ? blocks::packed_depth(all_steps)
                                  : all_steps <= last_steps ? all_steps
                                                            : all_steps - last_steps;
            const index_t turned = alone && !source.packed
                                       ? turn_rows<Form>(source, p, p + 1 == p1, static_cast<int>(tiles.begin(t1) - r0),
                                                         all_steps, rows + r0 * all_steps * row_elements, sums)
                                       : 0;
            for (index_t s0 = turned; s0 < all_steps; s0 += depth) {
                const index_t steps = all_steps - s0 < depth ? all_steps - s0 : depth;
                const T* b = here;
                index_t stream = steps * step_elements;
                lookahead ahead{0, reinterpret_cast<const char*>(here), 0, 0};
                if (source.packed) {
                    stream = source.stream;
                    b = source.packed + 2 * p * stream + s0 * step_elements;
                    const T* following = p + panels < p1 ? source.packed + 2 * (p + panels) * stream : source.then;
                    ahead.distance = distance;
                    if (panels == 2) {
                        // Where a stream ends, the beginning of the same one of the next panels, which is far from it.
                        if (s0 + steps + last_steps > all_steps)
                            ahead.distance +=
                                (following - b - (all_steps - s0) * step_elements) * static_cast<index_t>(sizeof(T));
                    } else if (source.fetch) {
                        if (t0 == 0) source.fetch->consume(steps * step_bytes);
                    } else {
                        // The rest of this panel, or what comes after it; each tile fetches its share. A lone tile
                        // reads the next panel line by line: with 5 rows a tenth faster than its two streams at once.
                        const T* next = s0 + steps < all_steps ? b + steps * step_elements : following;
                        ahead.next = reinterpret_cast<const char*>(next);
                        ahead.half = alone ? 64 : stream * static_cast<index_t>(sizeof(T));
                        ahead.advance = (alone ? 2 : 1) * step_bytes / (t1 - t0);
                    }
                } else {
                    const auto& from = source.rows;
                    for (int j = 0; j < 2 * panels; ++j)
                        from.template pack<Form::step, W>(here + j * stream, p + j / 2, j % 2, s0, steps);
                    // The rows of the next panel are two contiguous blocks: a piece of each while this one is
                    // multiplied.
                    const T *next = from.template row<W>(p + 1, 0), *other = from.template row<W>(p + 1, 1);
                    ahead.next = reinterpret_cast<const char*>(next + s0 * step_elements);
                    ahead.half = (other - next) * static_cast<index_t>(sizeof(T));
                    ahead.advance = step_bytes / (t1 - t0);
                }
                for (index_t t = t0; t < t1; ++t) {
                    const index_t begin = tiles.begin(t);
                    const int height = static_cast<int>(tiles.begin(t + 1) - begin);
                    const auto* a = rows + (begin * all_steps + s0 * height) * row_elements;
                    const kernel<Form> multiply = kernel_for_panels<Form>(panels, height);
                    if (source.fetch) ahead = source.fetch->next(steps, step_bytes, distance, height, t1 - t, here);
                    if constexpr (Form::flushes) {
                        const flush_subnormals mode;
                        multiply(steps, a, b, stream, sums + (begin - r0) * row, row, s0 == 0, ahead);
                    } else {
                        multiply(steps, a, b, stream, sums + (begin - r0) * row, row, s0 == 0, ahead);
                    }
                    if (!source.fetch) ahead.next += ahead.advance * steps;
                }
            }
            for (int q = 0; q < panels; ++q)
                for (index_t t = t0; t < t1; ++t) {
                    const index_t begin = tiles.begin(t);
                    done(p + q, begin, static_cast<int>(tiles.begin(t + 1) - begin),
                         sums + (begin - r0) * row + q * 2 * W, row);
                }
            p += panels;
        }
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
