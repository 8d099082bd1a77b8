// Loops over rows in vectors: what the tensor operations are made of.
//
//     map    y[i] = f(x[i]…)                             element by element
//     fold   step(…step(step(start, x[0]), x[1])…)       in 16 lanes: lane l takes elements l, l + 16, l + 32, …;
//                                                        then lanes l and l + 8, l + 4, l + 2, l + 1 are joined
//
// The order of a fold is the same on every target and for every number of threads: threads share rows or columns, never
// a sum.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/core/context.hpp>
#include <gatefold/core/math.hpp>
#include <gatefold/cpu/simd/number.hpp>
#include <gatefold/cpu/simd/vec.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Runs body(first, last) on parts of [0, count); a part costs `each` operations per item, small work stays on one
/// thread.
template <class Body>
GATEFOLD_INLINE void share_out(context<cpu>& ctx, index_t count, index_t each, Body body) {
    constexpr index_t least = 32768;  // below this, waking a thread costs more than it saves
    const index_t most = count < ctx.threads() ? count : ctx.threads();
    const index_t worth = each > 0 ? 1 + count / (1 + least / each) : 1;
    const int parts = static_cast<int>(worth < most ? worth : most);
    ctx.parallel(parts, [&](int p) { body(count * p / parts, count * (p + 1) / parts); });
}

/// y[i] = f(x[i]…) for i in [0, n).
template <class A, class F, class Out, class... T>
GATEFOLD_INLINE void map(index_t n, F f, Out* y, const T*... x) {
    constexpr int width = lanes<A>;
    index_t i = 0;
    for (; i + width <= n; i += width) store(y + i, f(load<A>(x + i)...));
    if (i < n) store_first(y + i, f(load_first<A>(x + i, n - i)...), n - i);
}

/// The same with two results: f gives (a, b) for y[i] and z[i].
template <class A, class F, class Y, class Z, class... T>
GATEFOLD_INLINE void map_two(index_t n, F f, Y* y, Z* z, const T*... x) {
    constexpr int width = lanes<A>;
    for (index_t i = 0; i < n; i += width) {
        const auto [a, b] = f(load_first<A>(x + i, n - i)...);
        store_first(y + i, a, n - i);
        store_first(z + i, b, n - i);
    }
}

/// y = f(x…), element by element, for views of one shape; long rows are shared among threads as well.
template <class A, class F, class Out, class... X>
GATEFOLD_INLINE void map_views(context<cpu>& ctx, F f, const Out& y, const X&... x) {
    constexpr index_t block = 4096;
    const index_t total = y.size(), columns = y.extent(Out::rank - 1);
    if (total == 0) return;
    if (y.is_contiguous() && (x.is_contiguous() && ...))
        share_out(ctx, ceil_div(total, block), block, [&](index_t first, index_t last) {
            const index_t end = last * block < total ? last * block : total;
            map<A>(end - first * block, f, y.data() + first * block, x.data() + first * block...);
        });
    else
        share_out(ctx, y.rows(), columns, [&](index_t first, index_t last) {
            for (index_t r = first; r < last; ++r) map<A>(columns, f, y.row(r), x.row(r)...);
        });
}

/// Folds n elements of the rows x in the order given above; join(a, b) is applied to lanes and must make `start`
/// neutral.
template <class A, class Step, class Join, class... T>
GATEFOLD_INLINE A fold(index_t n, A start, Step step, Join join, const T*... x) {
    constexpr int width = lanes<A>, parts = 16 / width;
    vec<A> sums[std::size_t{parts}];
    GATEFOLD_UNROLL
    for (int p = 0; p < parts; ++p) sums[p] = broadcast<A>(start);
    index_t i = 0;
    for (; i + 16 <= n; i += 16) {
        GATEFOLD_UNROLL
        for (int p = 0; p < parts; ++p) sums[p] = step(sums[p], load<A>(x + i + p * width)...);
    }
    A lane[16];
    for (int p = 0; p < parts; ++p) {
        const index_t left = n - i - p * width;
        store(lane + p * width, sums[p]);
        if (left <= 0) continue;
        const vec<A> last = step(sums[p], load_first<A>(x + i + p * width, left)...);
        for (int l = 0; l < width && l < left; ++l) lane[p * width + l] = last[l];
    }
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; ++l) lane[l] = join(lane[l], lane[l + half]);
    return lane[0];
}

/// Σ of what step adds to a lane.
template <class A, class Step, class... T>
GATEFOLD_INLINE A sum_of_row(index_t n, Step step, const T*... x) {
    return fold<A>(
        n, A{0}, step, [](A a, A b) { return a + b; }, x...);
}

/// The largest element; a NaN counts as -inf, and so does an empty row.
template <class A, class T>
GATEFOLD_INLINE A max_of_row(index_t n, const T* x) {
    return fold<A>(
        n, -real_format<A>::infinity, [](vec<A> a, vec<A> b) { return vec<A>{b.raw > a.raw ? b.raw : a.raw}; },
        [](A a, A b) { return b > a ? b : a; }, x);
}

/// For every column of [first, last): the chain over rows 0, 1, … of step(sum, r, x[r]… from the column on), starting
/// from +0 or from what `y` holds.
template <class A, class Step, class Out, class... Row>
GATEFOLD_INLINE void fold_columns(index_t first, index_t last, index_t rows, bool accumulate, Step step, Out* y,
                                  Row... row) {
    constexpr int width = lanes<A>, parts = 64 / width;
    for (index_t c = first; c < last; c += 64) {
        vec<A> sums[std::size_t{parts}];
        for (int p = 0; p < parts; ++p) {
            const index_t at = c + p * width;
            sums[p] = accumulate && at < last ? load_first<A>(y + at, last - at) : zeros<A>();
        }
        if (c + 64 <= last)
            for (index_t r = 0; r < rows; ++r) {
                GATEFOLD_UNROLL
                for (int p = 0; p < parts; ++p) sums[p] = step(sums[p], r, load<A>(row(r) + c + p * width)...);
            }
        else
            for (index_t r = 0; r < rows; ++r)
                for (int p = 0; p < parts && c + p * width < last; ++p) {
                    const index_t at = c + p * width;
                    sums[p] = step(sums[p], r, load_first<A>(row(r) + at, last - at)...);
                }
        for (int p = 0; p < parts; ++p) {
            const index_t at = c + p * width;
            if (at < last) store_first(y + at, sums[p], last - at);
        }
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
