// One expert's stored blocks against its rows, with the kernels of cpu/gemm/gemm.hpp and the bits of the sweep over
// everything.
//
// A block of zeros adds x · 0 to every sum. That changes a sum in two cases: x is infinite or a NaN, or the sum is -0.
// Sums begin at +0 and all products are multiples of 2^q, q the sum of the exponents of the last bits of the least
// numbers that are not zero among rows and weights. While 2^q is no less than what the arithmetic can hold, no sum is
// ever rounded to -0. So: blocks are passed over if the rows are finite and q is large enough; otherwise a block of
// zeros in the first-level cache takes their place. Likewise for steps of k where all rows are zero, if the weights are
// finite.
#pragma once

#include <cstddef>

#include <gatefold/cpu/experts/sweep.hpp>
#include <gatefold/cpu/sparse/kernels.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// The panels of one projection of one expert. Skips: rows are looked at for steps where they are zero.
template <class T, bool Skips>
struct sparse_source {
    const T* data;
    const sparse_run* runs;
    const index_t* panels;  ///< first run of each panel
    const sparse_matrix* matrix;
    const T* then;  ///< what is read after the last panel
};

/// Whether rows can be multiplied with what is stored alone.
template <class Form>
GATEFOLD_INLINE bool zeros_change_nothing(const typename Form::row_type* rows, index_t n,
                                          const sparse_matrix& weights) {
    using A = typename Form::sum_type;
    constexpr bool pairs = Form::step == 2 && Form::block == 1;
    constexpr int bias = real_format<A>::bias, fraction = real_format<A>::fraction_bits;
    // bf16 (8 bits) must stay above the subnormal numbers that are flushed, the others above the least of them.
    constexpr int least = std::is_same_v<typename Form::stream_type, bf16> ? 2 * (127 + 7) - 126 : bias + fraction + 1;
    const auto sizes = magnitudes_of<A, pairs>(rows, n);
    return sizes.finite() && sizes.exponent() + weights.exponent >= least;
}

/// One tile of few rows that can be multiplied with what is stored alone.
template <class Form, bool Skips, class Done>
GATEFOLD_NOINLINE void sweep_few(int height, const typename Form::row_type* rows, index_t all_steps,
                                 const sparse_source<typename Form::stream_type, Skips>& source, index_t p0, index_t p1,
                                 std::byte* scratch, const Done& done) {
    using sum = typename Form::sum_type;
    constexpr index_t row = 2 * lanes<sum>;
    sum* sums = reinterpret_cast<sum*>(scratch);
    const runs_kernel<Form> multiply = runs_kernel_for<Form>(height);
    [[maybe_unused]] listed_steps list{};
    [[maybe_unused]] bool listed = false;
    if constexpr (Skips) {
        constexpr std::size_t used = round_up(std::size_t{few_rows * row} * sizeof(sum), memory_alignment);
        listed = source.matrix->finite &&
                 list_steps<Form>(rows, height, all_steps, scratch + used, sweep_blocks<Form>::bytes - used, list);
    }
    const auto multiply_panel = [&](index_t p) {
        const sparse_run* runs = source.runs + source.panels[p];
        const index_t count = source.panels[p + 1] - source.panels[p];
        if constexpr (Skips) {
            if (listed) return listed_kernel_for<Form>(height)(list, runs, count, rows, source.data, sums, row);
        }
        multiply(runs, count, rows, source.data, sums, row);
    };
    for (index_t p = p0; p < p1; ++p) {
        if constexpr (Form::flushes) {
            const flush_subnormals mode;
            multiply_panel(p);
        } else {
            multiply_panel(p);
        }
        done(p, 0, height, sums, row);
    }
}

/// The sweep of cpu/experts/sweep.hpp over stored blocks.
template <class Form, bool Skips, class Done>
GATEFOLD_NOINLINE void sweep_sparse(const row_tiles& tiles, const typename Form::row_type* rows, index_t all_steps,
                                    const sparse_source<typename Form::stream_type, Skips>& source, index_t p0,
                                    index_t p1, std::byte* scratch, const Done& done) {
    using blocks = sweep_blocks<Form>;
    using T = typename Form::stream_type;
    using sum = typename Form::sum_type;
    constexpr int W = lanes<sum>;
    constexpr index_t row_elements = Form::block > 1 ? 2 : 1, depth = sparse_depth / Form::step, row = 2 * W;
    constexpr index_t step_elements = W * Form::step, step_bytes = step_elements * static_cast<index_t>(sizeof(T));
    if (p0 == p1) return;
    const bool skip = zeros_change_nothing<Form>(rows, tiles.rows * all_steps * row_elements, *source.matrix);
    if (skip && tiles.rows <= sparse_rows<Form>)
        return sweep_few<Form>(static_cast<int>(tiles.rows), rows, all_steps, source, p0, p1, scratch, done);
    T* nothing = reinterpret_cast<T*>(scratch);  // a block of zeros
    static_assert(static_cast<std::size_t>(2 * depth * step_bytes) <= blocks::hub_bytes);
    if (!skip) std::memset(scratch, 0, static_cast<std::size_t>(2 * depth * step_bytes));
    sum* sums = reinterpret_cast<sum*>(scratch + blocks::hub_bytes);

    for (index_t t0 = 0; t0 < tiles.tiles; t0 += blocks::tiles) {
        const index_t t1 = t0 + blocks::tiles < tiles.tiles ? t0 + blocks::tiles : tiles.tiles, r0 = tiles.begin(t0);
        for (index_t p = p0; p < p1; ++p) {
            bool fresh = true;
            // All tiles times `steps` steps from s0 on, whose streams begin at b and `stream` behind.
            const auto multiply = [&](index_t s0, index_t steps, const T* b, index_t stream, lookahead ahead) {
                for (index_t t = t0; t < t1; ++t) {
                    const index_t begin = tiles.begin(t);
                    const int height = static_cast<int>(tiles.begin(t + 1) - begin);
                    const auto* a = rows + (begin * all_steps + s0 * height) * row_elements;
                    const kernel<Form> run = kernel_for<Form, 2>(height);
                    if constexpr (Form::flushes) {
                        const flush_subnormals mode;
                        run(steps, a, b, stream, sums + (begin - r0) * row, row, fresh, ahead);
                    } else {
                        run(steps, a, b, stream, sums + (begin - r0) * row, row, fresh, ahead);
                    }
                    ahead.next += ahead.advance * steps;
                }
                fresh = false;
            };
            const auto multiply_nothing = [&](index_t from, index_t to) {
                for (index_t s = from; s < to; s += depth)
                    multiply(s, to - s < depth ? to - s : depth, nothing, depth * step_elements,
                             {0, reinterpret_cast<const char*>(nothing), 0, 0});
            };
            index_t reached = 0;
            const index_t first = source.panels[p], last = source.panels[p + 1];
            const index_t stream = stream_of(source.runs + first, last - first, step_elements);
            // As much of the next panel as is multiplied of this one; each tile fetches its share.
            const T* next = source.then;
            index_t half = stream;
            if (p + 1 < p1 && first < last) {
                next = source.data + source.runs[first].offset + 2 * stream;
                half = stream_of(source.runs + last, source.panels[p + 2] - last, step_elements);
            }
            for (index_t i = first; i < last; ++i) {
                const sparse_run& r = source.runs[i];
                if (!skip) multiply_nothing(reached, r.step);
                reached = r.step + r.steps;
                multiply(r.step, r.steps, source.data + r.offset, stream,
                         {1024, reinterpret_cast<const char*>(next), half * static_cast<index_t>(sizeof(T)),
                          step_bytes / (t1 - t0)});
                next += r.steps * step_elements;
            }
            if (!skip) multiply_nothing(reached, all_steps);
            if (fresh)
                for (index_t j = 0; j < (tiles.begin(t1) - r0) * row; ++j) sums[j] = 0;
            for (index_t t = t0; t < t1; ++t) {
                const index_t begin = tiles.begin(t);
                done(p, begin, static_cast<int>(tiles.begin(t + 1) - begin), sums + (begin - r0) * row, row);
            }
        }
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
