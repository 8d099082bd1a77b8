// The micro-kernels of the CPU wing: a tile of a few rows times a few vectors of outputs, sums in registers.
//
//     rows, packed    [step][R] ──┐
//     streams, packed [step][W] ──┴──> c[R][NV · W]      NV streams side by side, W = lanes of a register
//
// A form says what a step is: one k (float, double; f16 and bf16 storage widened), or a pair of k (bf16). Every sum is
// one chain in ascending steps, so that cutting k, rows or outputs into blocks never changes a bit.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include <gatefold/core/allocator.hpp>
#include <gatefold/cpu/simd/around.hpp>
#include <gatefold/cpu/simd/denormals.hpp>
#include <gatefold/cpu/simd/transpose.hpp>
#include <gatefold/cpu/simd/vec.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Rows cut into tiles of nearly equal height: 16 rows are 8 + 8, because a tile of 2 waits for its own sums.
struct row_tiles {
    index_t rows, tiles;
    GATEFOLD_INLINE row_tiles(index_t n, int max_rows) : rows(n), tiles(ceil_div<index_t>(n, max_rows)) {}
    GATEFOLD_INLINE index_t begin(index_t t) const { return rows * t / tiles; }
};

/// One 32-bit word in every lane, whatever it means.
GATEFOLD_INLINE vec<float> broadcast_word(const float* p) {
    std::uint32_t word;
    std::memcpy(&word, p, sizeof word);
    return {reinterpret_cast<vec<float>::raw_type>(broadcast<std::uint32_t>(word).raw)};
}

/// Sums in A over weights stored as B: c = fma(a, b, c) for one k after the other.
template <class A, class B = A>
struct chain {
    using sum_type = A;
    using row_type = A;     ///< an element of a packed row
    using stream_type = B;  ///< an element of a packed stream
    static constexpr int step = 1, padding = 1, block = 1;
    static constexpr bool flushes = false, by_tiles = false, widens = false;
    using tiles_type = row_tiles;
    // Two registers of outputs and one of the rows stand beside the sums.
    static constexpr int max_rows = vector_registers == 32 ? 14 : GATEFOLD_HARDWARE_FMA ? 6 : 4;

    GATEFOLD_INLINE static vec<A> weights(const B* p) { return load<A>(p); }
    GATEFOLD_INLINE static vec<A> row(const A* p) { return broadcast(*p); }
    GATEFOLD_INLINE static vec<A> multiply_add(vec<A> a, vec<A> b, vec<A> c) { return fma(a, b, c); }
};

/// The two bf16 of each 32-bit lane as floats: the element of lower address (even k), and the other one.
GATEFOLD_INLINE vec<float> even_of(vec<float> pairs) {
    using word = unsigned_vec<std::uint32_t, words>;
    return {reinterpret_cast<vec<float>::raw_type>(reinterpret_cast<word>(pairs.raw) << 16)};
}
GATEFOLD_INLINE vec<float> odd_of(vec<float> pairs) {
    using word = unsigned_vec<std::uint32_t, words>;
    return {reinterpret_cast<vec<float>::raw_type>(reinterpret_cast<word>(pairs.raw) & 0xffff0000u)};
}

/// order::dot: two k at a time, c = fma(even, fma(odd, c)), subnormals flushed. One instruction where the tier has it.
struct dot_form {
    using sum_type = float;
    using row_type = float;  // the bits of two bf16
    using stream_type = bf16;
    static constexpr int step = 2, padding = 32, block = 1;
    static constexpr bool flushes = !GATEFOLD_AVX512_BF16;  // the instruction does so whatever the mode
    static constexpr bool by_tiles = false, widens = !GATEFOLD_AVX512_BF16;
    using tiles_type = row_tiles;
    static constexpr int max_rows = GATEFOLD_AVX512_BF16 ? 14 : vector_registers == 32 ? 12 : 3;

    GATEFOLD_INLINE static vec<float> weights(const bf16* p) { return load<float>(reinterpret_cast<const float*>(p)); }
    GATEFOLD_INLINE static vec<float> row(const float* p) { return broadcast_word(p); }
    GATEFOLD_INLINE static vec<float> multiply_add(vec<float> a, vec<float> b, vec<float> c) {
#if GATEFOLD_AVX512_BF16
        return {_mm512_dpbf16_ps(c.raw, reinterpret_cast<__m512bh>(b.raw), reinterpret_cast<__m512bh>(a.raw))};
#else
        return fma(even_of(a), even_of(b), fma(odd_of(a), odd_of(b), c));
#endif
    }
};

/// order::portable of bf16: per 32 k one chain of the even and one of the odd products from zero, even + odd, then
/// added to the sum; subnormals flushed. Rows are packed as floats: [pair][2][R].
struct portable_form {
    using sum_type = float;
    using row_type = float;
    using stream_type = bf16;
    static constexpr int step = 2, padding = 32, block = 16;
    static constexpr bool flushes = true, by_tiles = false, widens = true;
    using tiles_type = row_tiles;
    static constexpr int max_rows = vector_registers == 32 ? 6 : GATEFOLD_HARDWARE_FMA ? 2 : 1;
};

/// What a kernel fetches besides what it multiplies.
struct lookahead {
    /// Bytes ahead in the streams themselves. Into the first-level cache where they come from the second; streams that
    /// come from memory are only brought near, or the loads would stop the hardware's prefetch from running ahead.
    index_t distance = 0;
    const char* next = nullptr;  ///< what will be multiplied next, into the second-level cache
    index_t half = 0;            ///< bytes from the first to the second stream of `next`
    index_t advance = 0;         ///< bytes of each of the two per step
};

/// Elements of a panel from one register of a step to the next, and from one step to the next.
template <class Form>
struct panel_strides {
    index_t stream, step;

    /// Packed: streams `apart` elements from one another, in each the steps side by side.
    GATEFOLD_INLINE panel_strides(index_t apart) : stream(apart), step(lanes<typename Form::sum_type> * Form::step) {}
    /// A matrix as it is stored: registers side by side, rows `apart` elements from one another.
    GATEFOLD_INLINE static panel_strides of_rows(index_t apart) requires(Form::step == 1) {
        panel_strides strides(lanes<typename Form::sum_type>);
        strides.step = apart;
        return strides;
    }
};

/// The kernel of a form whose sums restart every `block` steps.
template <class Form, int R, int NV>
    requires(Form::block > 1)
GATEFOLD_NOINLINE void multiply(index_t steps, const float* a, const bf16* b, panel_strides<Form> strides, float* c,
                                index_t row, bool fresh, lookahead ahead) {
    for (index_t k = 0; k < steps; k += Form::block) {
        vec<float> even[std::size_t{R}][std::size_t{NV}], odd[std::size_t{R}][std::size_t{NV}];
        GATEFOLD_UNROLL
        for (int i = 0; i < R; ++i) {
            GATEFOLD_UNROLL
            for (int j = 0; j < NV; ++j) even[i][j] = odd[i][j] = zeros<float>();
        }
        for (int p = 0; p < Form::block; ++p) {
            vec<float> w[std::size_t{NV}];
            GATEFOLD_UNROLL
            for (int j = 0; j < NV; ++j) {
                w[j] = load<float>(reinterpret_cast<const float*>(b + j * strides.stream));
                if (R > 1) keep_apart(w[j].raw);
                prefetch<(NV == 2)>(reinterpret_cast<const char*>(b + j * strides.stream) + ahead.distance);
            }
            if constexpr (NV == 2) {
                prefetch<false>(ahead.next);
                prefetch<false>(ahead.next + ahead.half);
                ahead.next += ahead.advance;
            }
            GATEFOLD_UNROLL
            for (int i = 0; i < R; ++i) {
                const vec<float> x = broadcast_word(a + i), y = broadcast_word(a + R + i);
                GATEFOLD_UNROLL
                for (int j = 0; j < NV; ++j) {
                    even[i][j] = fma(x, even_of(w[j]), even[i][j]);
                    odd[i][j] = fma(y, odd_of(w[j]), odd[i][j]);
                }
            }
            a += 2 * R;
            b += strides.step;
        }
        GATEFOLD_UNROLL
        for (int i = 0; i < R; ++i) {
            GATEFOLD_UNROLL
            for (int j = 0; j < NV; ++j) {
                float* sum = c + i * row + j * words;
                const vec<float> old = fresh && k == 0 ? zeros<float>() : load<float>(sum);
                store(sum, add(old, add(even[i][j], odd[i][j])));
            }
        }
    }
}

/// Rows up to which a kernel has four streams, not two: few rows have too few chains to hide the latency of a
/// multiply-add, and memory wants several streams to read from (eight read no faster).
inline constexpr int few_rows = 4;
template <class Form>
constexpr int most_streams(int rows) {
    // Four registers of weights and one of the rows stand beside the sums, and what the weights are widened to.
    constexpr int others = Form::widens && Form::block == 1 ? 9 : 5;
    constexpr int sums = (vector_registers - others) / (Form::block > 1 ? 2 : 1);
    return rows <= few_rows && rows * 4 <= sums ? 4 : 2;
}

/// c[i, :] = (fresh ? 0 : c[i, :]) + Σ row i · panel. `row` is the number of elements from one row of c to the next.
/// With Around c is fresh and written past the caches, at multiples of a register.
template <class Form, int R, int NV, bool Around = false>
    requires(Form::block == 1)
GATEFOLD_NOINLINE void multiply(index_t steps, const typename Form::row_type* a, const typename Form::stream_type* b,
                                panel_strides<Form> strides, typename Form::sum_type* c, index_t row, bool fresh,
                                lookahead ahead) {
    using sum = typename Form::sum_type;
    constexpr int width = lanes<sum>;
    vec<sum> sums[std::size_t{R}][std::size_t{NV}];
    if (Around || fresh) {
        GATEFOLD_UNROLL
        for (int i = 0; i < R; ++i) {
            GATEFOLD_UNROLL
            for (int j = 0; j < NV; ++j) sums[i][j] = zeros<sum>();
        }
    } else {
        GATEFOLD_UNROLL
        for (int i = 0; i < R; ++i) {
            GATEFOLD_UNROLL
            for (int j = 0; j < NV; ++j) sums[i][j] = load<sum>(c + i * row + j * width);
        }
    }
    for (index_t k = 0; k < steps; ++k) {
        vec<sum> w[std::size_t{NV}];
        GATEFOLD_UNROLL
        for (int j = 0; j < NV; ++j) {
            w[j] = Form::weights(b + j * strides.stream);
            if (R > 1 || Form::widens) keep_apart(w[j].raw);  // one load for all rows
            prefetch<(NV == 2)>(reinterpret_cast<const char*>(b + j * strides.stream) + ahead.distance);
        }
        if constexpr (NV == 2) {
            prefetch<false>(ahead.next);
            prefetch<false>(ahead.next + ahead.half);
            ahead.next += ahead.advance;
        }
        GATEFOLD_UNROLL
        for (int i = 0; i < R; ++i) {
            vec<sum> x = Form::row(a + i);
            keep_apart(x.raw);  // one load for all streams, not one in each multiply-add
            GATEFOLD_UNROLL
            for (int j = 0; j < NV; ++j) sums[i][j] = Form::multiply_add(x, w[j], sums[i][j]);
        }
        a += R;
        b += strides.step;
    }
    forget(c);  // else g++ keeps an address per row across the loop
    GATEFOLD_UNROLL
    for (int i = 0; i < R; ++i, c += row) {
        GATEFOLD_UNROLL
        for (int j = 0; j < NV; ++j) {
            if constexpr (Around)
                store_around(c + j * width, sums[i][j]);
            else
                store(c + j * width, sums[i][j]);
        }
    }
}

/// The steps that multiply_rows() takes at a time; it has kernels for 1 .. few_rows rows.
template <class Form>
inline constexpr int turned_steps =
    Form::block > lanes<typename Form::sum_type> ? Form::block : lanes<typename Form::sum_type>;

/// The ends of `rows` rows, `count` elements each, one behind the other: to[Elements · i + j], zeros from `count` on.
template <int Elements, class T>
GATEFOLD_NOINLINE void copy_ends(T* to, const T* from, index_t columns, int rows, index_t count) {
    for (int i = 0; i < rows; ++i, from += columns, to += Elements)
        for (int j = 0; j < Elements; j += 2 * lanes<float>)
            store(reinterpret_cast<float*>(to + j), load_words_first(from + j, count - j));
}

/// c[i, :] = Σ row i · W rows of a matrix as they lie in memory: squares of W steps are turned in registers and used at
/// once. Where the form pads rows, all steps and the ends of rows from a copy; otherwise `steps` is a multiple of
/// turned_steps within the columns. The same sums as multiply() over the packed stream.
///
/// A core drops requests for which no miss buffer is free, and a line that was dropped makes it wait for the whole way
/// to memory and then ask in bursts. So lines are asked for repeatedly: `next`, the rows of the following call, as four
/// streams, which memory delivers faster than one, and every row again shortly before it is read, at multiples of 4 or
/// 8 KiB of all rows (bench layer_forward_hub: with one request each, memory's rate is missed by a fifth).
template <class Form, int R>
GATEFOLD_NOINLINE void multiply_rows(index_t steps, const typename Form::row_type* a,
                                     const typename Form::stream_type* matrix, index_t columns,
                                     typename Form::sum_type* c, index_t row, const char* next) {
    using sum = typename Form::sum_type;
    using T = typename Form::stream_type;
    constexpr int width = lanes<sum>, together = width > 4 ? width / 4 : 1, groups = width / together;
    // Pairs take longer to multiply: a third repetition would cost more than the lines that it brings.
    constexpr int repeats = Form::step == 2 ? 2 : 3;
    constexpr int elements = turned_steps<Form> * Form::step, end = Form::padding;
    constexpr index_t size = sizeof(T), distance = (Form::step == 2 ? 8192 : 4096) / width;
    index_t row_bytes = columns * size;
    const index_t squares = columns / elements, whole = squares * turned_steps<Form>;
    index_t left = squares * elements * size;  // bytes of each row
    index_t jump = next - reinterpret_cast<const char*>(matrix) - left;
    // Bytes from one request to the next: a line and its share of the ends of rows.
    const index_t request = squares > 0 ? ceil_div(row_bytes * vector_bytes, left) : vector_bytes;
    const index_t section = together * (row_bytes - request);
    [[maybe_unused]] alignas(memory_alignment) T ends[std::size_t{width * end}];
    const T* from[std::size_t{groups}];
    GATEFOLD_UNROLL
    for (int g = 0; g < groups; ++g) {
        from[g] = matrix + g * together * columns;
        forget(from[g]);  // else g++ keeps an address per row, more than there are registers
    }
    vec<sum> sums[std::size_t{R}];
    GATEFOLD_UNROLL
    for (int i = 0; i < R; ++i) sums[i] = zeros<sum>();
    for (index_t k = 0; k < steps; k += turned_steps<Form>) {
        if constexpr (Form::padding > 1)
            if (k == whole) {
                copy_ends<end>(ends, matrix + squares * elements, columns, width, columns - squares * elements);
                row_bytes = end * size;
                jump = 0;
                GATEFOLD_UNROLL
                for (int g = 0; g < groups; ++g) from[g] = ends + g * together * end;
            }
        [[maybe_unused]] vec<sum> even[std::size_t{R}], odd[std::size_t{R}];
        if constexpr (Form::block > 1) {
            GATEFOLD_UNROLL
            for (int i = 0; i < R; ++i) even[i] = odd[i] = zeros<sum>();
        }
        for (int square = 0; square < turned_steps<Form>; square += width) {
            const char* stream = next;
            const char* again[std::size_t{repeats}];
            GATEFOLD_UNROLL
            for (int i = 0; i < repeats; ++i) {
                const index_t ahead = (i + 1) * distance;
                again[i] = reinterpret_cast<const char*>(from[0]) + (left > ahead ? ahead : ahead + jump);
            }
            vec<sum> w[std::size_t{width}];
            GATEFOLD_UNROLL
            for (int j = 0; j < width; ++j) {
                const T* p = reinterpret_cast<const T*>(reinterpret_cast<const char*>(from[j / together]) +
                                                        j % together * row_bytes);
                if constexpr (Form::step == 2)
                    w[j] = load<sum>(reinterpret_cast<const sum*>(p));
                else
                    w[j] = load<sum>(p);
                keep_apart(w[j].raw);  // one load, not one in each shuffle
            }
            GATEFOLD_UNROLL
            for (int g = 0; g < groups; ++g) from[g] += width * Form::step;
            transpose(w);
            GATEFOLD_UNROLL
            for (int j = 0; j < width; ++j) {
                // Among the multiply-adds, so that the loads of a square need not queue behind its requests.
                GATEFOLD_UNROLL
                for (int i = 0; i < repeats; ++i) prefetch<false>(again[i] + j % together * row_bytes);
                prefetch<false>(stream);
                stream += request;
                if (j % together == together - 1) {
                    GATEFOLD_UNROLL
                    for (int i = 0; i < repeats; ++i) {
                        again[i] += together * row_bytes;
                        forget(again[i]);
                    }
                    stream += section;
                    forget(stream);
                }
                GATEFOLD_UNROLL
                for (int i = 0; i < R; ++i) {
                    if constexpr (Form::block > 1) {
                        even[i] = fma(broadcast_word(a + i), even_of(w[j]), even[i]);
                        odd[i] = fma(broadcast_word(a + R + i), odd_of(w[j]), odd[i]);
                    } else {
                        sums[i] = Form::multiply_add(Form::row(a + i), w[j], sums[i]);
                    }
                }
                a += (Form::block > 1 ? 2 : 1) * R;
            }
            next += together * request;
            left -= width * Form::step * size;
        }
        if constexpr (Form::block > 1) {
            GATEFOLD_UNROLL
            for (int i = 0; i < R; ++i) sums[i] = add(sums[i], add(even[i], odd[i]));
        }
    }
    GATEFOLD_UNROLL
    for (int i = 0; i < R; ++i) store(c + i * row, sums[i]);
}

template <class Form>
using kernel = void (*)(index_t, const typename Form::row_type*, const typename Form::stream_type*, panel_strides<Form>,
                        typename Form::sum_type*, index_t, bool, lookahead);

/// The tallest tile that has a kernel with NV streams.
template <class Form, int NV>
constexpr int most_rows() {
    int rows = Form::max_rows;
    while (rows > 0 && most_streams<Form>(rows) < NV) --rows;
    return rows;
}

/// The kernel for `rows` rows (1 .. most_rows) and NV streams.
template <class Form, int NV, int Max = most_rows<Form, NV>()>
GATEFOLD_INLINE kernel<Form> kernel_for(int rows) {
    return [&]<int... At>(std::integer_sequence<int, At...>) {
        static constexpr kernel<Form> table[] = {&multiply<Form, At + 1, NV>...};
        return table[rows - 1];
    }
    (std::make_integer_sequence<int, Max>{});
}

template <class Form>
using rows_kernel = void (*)(index_t, const typename Form::row_type*, const typename Form::stream_type*, index_t,
                             typename Form::sum_type*, index_t, const char*);

/// The kernel of multiply_rows() for 1 .. few_rows rows.
template <class Form>
GATEFOLD_INLINE rows_kernel<Form> rows_kernel_for(int rows) {
    return [&]<int... At>(std::integer_sequence<int, At...>) {
        static constexpr rows_kernel<Form> table[] = {&multiply_rows<Form, At + 1>...};
        return table[rows - 1];
    }
    (std::make_integer_sequence<int, few_rows>{});
}

/// The kernel for a number of panels (1, or 2 where most_streams() allows it) and rows.
template <class Form>
GATEFOLD_INLINE kernel<Form> kernel_for_panels(int panels, int rows) {
    if constexpr (most_rows<Form, 4>() > 0)
        if (panels == 2) return kernel_for<Form, 4>(rows);
    return kernel_for<Form, 2>(rows);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
