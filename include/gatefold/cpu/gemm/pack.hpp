// Copies that put operands in the order in which the kernels read them: rows of tokens into [step][R], rows of weights
// into streams [step][W], both by square transposes; gather, scale and conversion happen on the way.
#pragma once

#include <cstdint>
#include <type_traits>

#include <gatefold/cpu/simd/around.hpp>
#include <gatefold/cpu/simd/transpose.hpp>
#include <gatefold/cpu/simd/vec.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Rows of a matrix, in order or picked by a plan: row r is row pairs[r] / slots of `data`, times factor[pairs[r]].
template <class T>
struct rows_of {
    using value_type = T;
    using factor_type = accumulate_t<T>;
    const T* data;
    index_t stride;
    const std::int32_t* pairs = nullptr;
    int slots = 1;
    const factor_type* factor = nullptr;

    GATEFOLD_INLINE const T* row(index_t r) const { return data + (pairs ? pairs[r] / slots : r) * stride; }
    GATEFOLD_INLINE factor_type factor_of(index_t r) const { return factor[pairs ? pairs[r] : r]; }
};

/// A stretch of one row as vectors of the type it is summed in; zeros behind its end.
template <class A, class T>
struct row_reader {
    using element = A;
    const T* data;
    index_t columns;
    const A* factor;

    GATEFOLD_INLINE vec<A> operator()(index_t step) const {
        const vec<A> x = load_first<A>(data + step, columns - step);
        return factor ? mul(x, broadcast<A>(*factor)) : x;
    }
    /// Steps of `steps` that `inside` may read from; all rows of a block are as long and scaled alike.
    GATEFOLD_INLINE index_t whole(index_t steps) const {
        const index_t n = steps < columns ? steps : columns;
        return factor ? 0 : n;
    }
    GATEFOLD_INLINE vec<A> inside(index_t step) const { return load<A>(data + step); }
};

/// A stretch of one row as words of two bf16; zeros behind its end. Other types are rounded on the way.
template <class T>
struct pair_reader {
    using element = float;
    const T* data;
    index_t columns;
    const float* factor;

    GATEFOLD_INLINE vec<float> operator()(index_t step) const {
        constexpr int n = 2 * words;
        const T* p = data + 2 * step;
        const index_t left = columns - 2 * step;
        if constexpr (std::is_same_v<T, bf16>)
            if (!factor) return load_words_first(p, left);
        vec<float> result;
        bf16 pairs[n];
        for (int half = 0; half < n; half += words) {
            vec<float> x = load_first<float>(p + half, left - half);
            if (factor) x = mul(x, broadcast(*factor));
            store(pairs + half, x);
        }
        std::memcpy(&result.raw, pairs, sizeof result.raw);
        return result;
    }
    GATEFOLD_INLINE index_t whole(index_t steps) const {
        const index_t n = steps < columns / 2 ? steps : columns / 2;
        return factor || !std::is_same_v<T, bf16> ? 0 : n;
    }
    GATEFOLD_INLINE vec<float> inside(index_t step) const {
        if constexpr (std::is_same_v<T, bf16>) {
            vec<float> result;
            std::memcpy(&result.raw, data + 2 * step, sizeof result.raw);
            return result;
        } else {
            return (*this)(step);
        }
    }
};

/// A stretch of one row rounded to bf16, as floats; zeros behind its end.
template <class T>
struct rounding_reader {
    using element = float;
    const T* data;
    index_t columns;
    const float* factor;

    GATEFOLD_INLINE vec<float> operator()(index_t step) const {
        vec<float> x = load_first<float>(data + step, columns - step);
        if (std::is_same_v<T, bf16> && !factor) return x;
        if (factor) x = mul(x, broadcast(*factor));
        bf16 rounded[words];
        store(rounded, x);
        return load<float>(rounded);
    }
    GATEFOLD_INLINE index_t whole(index_t) const { return 0; }
    GATEFOLD_INLINE vec<float> inside(index_t step) const { return (*this)(step); }
};

/// Writes one step of a stream: W numbers in storage type, or W words of two bf16; past the caches if Around.
template <class T, bool Around = false, class A>
GATEFOLD_INLINE void store_stream(T* to, vec<A> x) {
    if constexpr (Around && (std::is_same_v<T, bf16> || std::is_same_v<T, A>))
        store_around(reinterpret_cast<A*>(to), x);
    else if constexpr (std::is_same_v<T, bf16>)
        std::memcpy(to, &x.raw, sizeof x.raw);
    else
        store(to, x);
}

/// Interleaves rows: to[s · height + i] = element s of row i, s in [0, steps). `readers` holds `rows` rows; the rows
/// from there up to `height` become zeros.
template <class Reader, class A = typename Reader::element>
GATEFOLD_NOINLINE void interleave(A* to, int height, const Reader* readers, int rows, index_t steps) {
    constexpr int width = lanes<A>;
    if (height == 1 && rows == 1) {
        for (index_t s = 0; s < steps; s += width) store_first(to + s, readers[0](s), steps - s);
        return;
    }
    const index_t total = steps * height;
    index_t done = 0;
    if (rows == height && height <= width) {
        const index_t whole = readers[0].whole(steps);
        for (; done + width <= whole && (done + width) * height + width <= total + height; done += width) {
            vec<A> block[std::size_t{width}];
            GATEFOLD_UNROLL
            for (int i = 0; i < width; ++i) block[i] = readers[i < height ? i : height - 1].inside(done);
            transpose(block);
            GATEFOLD_UNROLL
            for (int j = 0; j < width; ++j) store(to + (done + j) * height, block[j]);
        }
    }
    for (index_t s = done; s < steps; s += width) {
        const index_t n = steps - s < width ? steps - s : width;
        for (int first = 0; first < height; first += width) {
            vec<A> block[std::size_t{width}];
            for (int i = 0; i < width; ++i) block[i] = first + i < rows ? readers[first + i](s) : zeros<A>();
            transpose(block);
            // A full register reaches into what is written next, but neither beyond the end nor into what stands there.
            for (index_t j = 0; j < n; ++j) {
                A* p = to + (s + j) * height + first;
                if (height - first >= width || (first == 0 && (s + j) * height + width <= total))
                    store(p, block[j]);
                else
                    store_first(p, block[j], height - first);
            }
        }
    }
}

/// Interleaves `count` columns of the rows [first, first + W) of `from` [height][W], those that exist:
/// to[j · height + i] = from[i][j]. Writes nothing outside [0, height · count).
template <class A>
GATEFOLD_NOINLINE void interleave_square(A* to, int height, const A* from, int first, index_t count) {
    constexpr int width = lanes<A>;
    if (height == 1) return store_first(to, load<A>(from), count);
    const index_t rows = height - first, total = count * height;
    vec<A> block[std::size_t{width}];
    GATEFOLD_UNROLL
    for (int i = 0; i < width; ++i) block[i] = load<A>(from + (first + (i < rows ? i : rows - 1)) * width);
    transpose(block);
    // What a full register writes too much is written again by the next one, up to where nothing follows.
    GATEFOLD_UNROLL
    for (int j = 0; j < width; ++j) {
        if (j >= count) break;
        const index_t at = j * height + first;
        store_first(to + at, block[j], first == 0 && at + width <= total ? width : rows);
    }
}

#if GATEFOLD_AVX512
/// The same of rows of half a register, `from` [height][W / 2] with room for W rows; all of them at once.
GATEFOLD_INLINE void interleave_halves(float* to, int height, const float* from, index_t count) {
    constexpr int width = lanes<float>, half = width / 2;
    const index_t total = count * height;
    vec<float> block[std::size_t{half}];
    GATEFOLD_UNROLL
    for (int i = 0; i < half; ++i) {
        // Two loads, because one of both rows would wait until what wrote them has left the store buffer.
        const vec<float, half> lower = load<float, half>(from + i * half),
                               upper = load<float, half>(from + (half + i) * half);
        block[i].raw =
            __builtin_shufflevector(lower.raw, upper.raw, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    }
    transpose_halves(block);
    GATEFOLD_UNROLL
    for (int j = 0; j < half; ++j) {
        if (j >= count) break;
        store_first(to + j * height, block[j], j * height + width <= total ? width : height);
    }
}
#endif

/// Rows of a matrix of `columns` columns as a stream [step][W], steps [0, steps) from each pointer on; null rows are
/// zeros, and so is what stands behind `columns`. With Around `to` is aligned to a register, the rows lie one behind
/// the other, and as many of those that follow are fetched.
template <class T, int Step, bool Around = false, class A = accumulate_t<T>>
GATEFOLD_NOINLINE void interleave_stream(T* to, const T* const* rows, index_t steps, index_t columns) {
    constexpr int width = lanes<A>;
    bool whole = true;
    for (int i = 0; i < width; ++i) whole = whole && rows[i];
    index_t s = 0;
    if (whole) {
        // What is packed next follows the last row: fetched as four streams, because of 16 rows that are read in turn
        // memory's own prefetchers lose track (bench pack_touched).
        constexpr int together = width > 4 ? width / 4 : 1;
        const index_t row_bytes = (rows[1] - rows[0]) * static_cast<index_t>(sizeof(T));
        const char* ahead = reinterpret_cast<const char*>(rows[0]) + width * row_bytes;
        for (; s + width <= steps && (s + width) * Step <= columns; s += width) {
            vec<A> x[std::size_t{width}];
            GATEFOLD_UNROLL
            for (int i = 0; i < width; ++i) {
                const T* p = rows[i] + s * Step;
                if constexpr (Step == 2)
                    x[i] = load<A>(reinterpret_cast<const A*>(p));
                else
                    x[i] = load<A>(p);
            }
            transpose(x);
            GATEFOLD_UNROLL
            for (int j = 0; j < width; ++j) {
                if constexpr (Around)
                    prefetch<false>(ahead + j / together * together * row_bytes + j % together * vector_bytes);
                store_stream<T, Around>(to + (s + j) * width * Step, x[j]);
            }
            ahead += together * vector_bytes;
        }
    }
    for (; s < steps; s += width) {
        const index_t n = steps - s < width ? steps - s : width, k = s * Step;
        vec<A> x[std::size_t{width}];
        for (int i = 0; i < width; ++i) {
            if (!rows[i])
                x[i] = zeros<A>();
            else if constexpr (Step == 2)
                x[i] = pair_reader<T>{rows[i], columns, nullptr}(s);
            else
                x[i] = load_first<A>(rows[i] + k, columns - k);
        }
        transpose(x);
        for (index_t j = 0; j < n; ++j) store_stream<T, Around>(to + (s + j) * width * Step, x[j]);
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
