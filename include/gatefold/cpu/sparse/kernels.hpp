// The kernels of block-sparse experts for few rows: a panel's runs in one call, all of them or the steps of a list.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/cpu/gemm/gemm.hpp>
#include <gatefold/cpu/sparse/pack.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// The most rows that these kernels take.
template <class Form>
inline constexpr int sparse_rows = few_rows < Form::max_rows ? few_rows : Form::max_rows;

/// The sums of R rows of a panel in registers.
template <class A, int R>
struct panel_sums {
    vec<A> at[std::size_t{R}][2];

    GATEFOLD_INLINE panel_sums() {
        GATEFOLD_UNROLL
        for (int i = 0; i < R; ++i) at[i][0] = at[i][1] = zeros<A>();
    }
    /// Ends a block of order::portable: even + odd, then added.
    GATEFOLD_INLINE void add_chains(const panel_sums& even, const panel_sums& odd) {
        GATEFOLD_UNROLL
        for (int i = 0; i < R; ++i) {
            GATEFOLD_UNROLL
            for (int j = 0; j < 2; ++j) at[i][j] = add(at[i][j], add(even.at[i][j], odd.at[i][j]));
        }
    }
    GATEFOLD_INLINE void write(A* c, index_t row) const {
        GATEFOLD_UNROLL
        for (int i = 0; i < R; ++i) {
            GATEFOLD_UNROLL
            for (int j = 0; j < 2; ++j) store(c + i * row + j * lanes<A>, at[i][j]);
        }
    }
};

/// c[i, :] = Σ row i · the runs of one panel, for few rows: no sum leaves its register, and both streams are fetched
/// `ahead` bytes ahead.
template <class Form, int R>
GATEFOLD_NOINLINE void multiply_runs(const sparse_run* runs, index_t count, const typename Form::row_type* a,
                                     const typename Form::stream_type* data, typename Form::sum_type* c, index_t row) {
    using T = typename Form::stream_type;
    using sum = typename Form::sum_type;
    constexpr index_t element = lanes<sum> * Form::step, row_elements = Form::block > 1 ? 2 : 1;
    constexpr index_t ahead = 1024;
    const index_t stream = stream_of(runs, count, element);
    panel_sums<sum, R> sums;
    for (; count > 0; --count, ++runs) {
        const index_t steps = runs->steps;
        const T* b = data + runs->offset;
        const auto* x = a + runs->step * row_elements * R;
        for (index_t k = 0; k < steps; k += Form::block) {
            [[maybe_unused]] panel_sums<sum, R> even, odd;
            for (int s = 0; s < Form::block; ++s) {
                GATEFOLD_UNROLL
                for (int j = 0; j < 2; ++j) {
                    prefetch<false>(reinterpret_cast<const char*>(b + j * stream) + ahead);
                    if constexpr (Form::block > 1) {
                        vec<sum> w = load<sum>(reinterpret_cast<const sum*>(b + j * stream));
                        keep_apart(w.raw);
                        GATEFOLD_UNROLL
                        for (int i = 0; i < R; ++i) {
                            even.at[i][j] = fma(broadcast_word(x + i), even_of(w), even.at[i][j]);
                            odd.at[i][j] = fma(broadcast_word(x + R + i), odd_of(w), odd.at[i][j]);
                        }
                    } else {
                        vec<sum> w = Form::weights(b + j * stream);
                        keep_apart(w.raw);
                        GATEFOLD_UNROLL
                        for (int i = 0; i < R; ++i)
                            sums.at[i][j] = Form::multiply_add(Form::row(x + i), w, sums.at[i][j]);
                    }
                }
                b += element;
                x += row_elements * R;
            }
            if constexpr (Form::block > 1) sums.add_chains(even, odd);
        }
    }
    sums.write(c, row);
}

template <class Form>
using runs_kernel = void (*)(const sparse_run*, index_t, const typename Form::row_type*,
                             const typename Form::stream_type*, typename Form::sum_type*, index_t);
template <class Form>
GATEFOLD_INLINE runs_kernel<Form> runs_kernel_for(int rows) {
    return [&]<int... At>(std::integer_sequence<int, At...>) {
        static constexpr runs_kernel<Form> table[] = {&multiply_runs<Form, At + 1>...};
        return table[rows - 1];
    }
    (std::make_integer_sequence<int, sparse_rows<Form>>{});
}

/// Steps of k in which some row of a tile is not zero, ascending; first[b]: the first of them from block b on.
struct listed_steps {
    const std::uint16_t* steps;
    const std::uint16_t* first;
};

/// The same over the listed steps alone. Nothing is fetched ahead: the processor looks far enough itself.
template <class Form, int R>
GATEFOLD_NOINLINE void multiply_listed(listed_steps list, const sparse_run* runs, index_t count,
                                       const typename Form::row_type* a, const typename Form::stream_type* data,
                                       typename Form::sum_type* c, index_t row) {
    using T = typename Form::stream_type;
    using sum = typename Form::sum_type;
    constexpr index_t depth = sparse_depth / Form::step, element = lanes<sum> * Form::step;
    const index_t stream = stream_of(runs, count, element);
    panel_sums<sum, R> sums;
    for (; count > 0; --count, ++runs) {
        const index_t base = runs->step, first = base / depth;
        const index_t blocks = ceil_div(index_t{runs->steps}, depth);
        const T* b = data + runs->offset;
        if constexpr (Form::block == 1) {
            const std::uint16_t *at = list.steps + list.first[first], *end = list.steps + list.first[first + blocks];
            for (; at != end; ++at) {
                const T* p = b + (*at - base) * element;
                const vec<sum> w0 = Form::weights(p), w1 = Form::weights(p + stream);
                GATEFOLD_UNROLL
                for (int i = 0; i < R; ++i) {
                    const vec<sum> x = Form::row(a + index_t{*at} * R + i);
                    sums.at[i][0] = Form::multiply_add(x, w0, sums.at[i][0]);
                    sums.at[i][1] = Form::multiply_add(x, w1, sums.at[i][1]);
                }
            }
        } else {
            static_assert(Form::block == depth);
            for (index_t k = first; k < first + blocks; ++k) {
                const std::uint16_t *at = list.steps + list.first[k], *end = list.steps + list.first[k + 1];
                if (at == end) continue;
                panel_sums<sum, R> even, odd;
                for (; at != end; ++at) {
                    const T* p = b + (*at - base) * element;
                    const vec<sum> w[2] = {load<sum>(reinterpret_cast<const sum*>(p)),
                                           load<sum>(reinterpret_cast<const sum*>(p + stream))};
                    GATEFOLD_UNROLL
                    for (int i = 0; i < R; ++i) {
                        const sum* rows = a + index_t{*at} * 2 * R + i;
                        const vec<sum> x = broadcast_word(rows), y = broadcast_word(rows + R);
                        GATEFOLD_UNROLL
                        for (int j = 0; j < 2; ++j) {
                            even.at[i][j] = fma(x, even_of(w[j]), even.at[i][j]);
                            odd.at[i][j] = fma(y, odd_of(w[j]), odd.at[i][j]);
                        }
                    }
                }
                sums.add_chains(even, odd);
            }
        }
    }
    sums.write(c, row);
}

template <class Form>
using listed_kernel = void (*)(listed_steps, const sparse_run*, index_t, const typename Form::row_type*,
                               const typename Form::stream_type*, typename Form::sum_type*, index_t);
template <class Form>
GATEFOLD_INLINE listed_kernel<Form> listed_kernel_for(int rows) {
    return [&]<int... At>(std::integer_sequence<int, At...>) {
        static constexpr listed_kernel<Form> table[] = {&multiply_listed<Form, At + 1>...};
        return table[rows - 1];
    }
    (std::make_integer_sequence<int, sparse_rows<Form>>{});
}

/// Writes the list for a tile of `height` rows into `bytes` bytes at `memory`. False where it does not fit, or where
/// more than a fifth is listed: single lines come from memory at half the rate of a stream or less (bench
/// relu_forward).
template <class Form>
GATEFOLD_NOINLINE bool list_steps(const typename Form::row_type* rows, int height, index_t steps, std::byte* memory,
                                  std::size_t bytes, listed_steps& list) {
    using word = typename number<typename Form::sum_type>::bits_type;
    constexpr index_t depth = sparse_depth / Form::step;
    constexpr word value =
        Form::step == 2 && Form::block == 1 ? word{0x7fff7fff} : magnitudes<typename Form::sum_type>::sign - 1;
    const index_t blocks = ceil_div(steps, depth), each = height * (Form::block > 1 ? 2 : 1);
    if (steps > 65535 || static_cast<std::size_t>(steps + blocks + 1) * sizeof(std::uint16_t) > bytes) return false;
    auto* first = reinterpret_cast<std::uint16_t*>(memory);
    std::uint16_t* at = first + blocks + 1;
    list = {at, first};
    index_t n = 0;
    for (index_t s = 0; s < steps; ++s) {
        if (s % depth == 0) first[s / depth] = static_cast<std::uint16_t>(n);
        word any = 0;
        for (index_t i = 0; i < each; ++i) any |= bits_as<word>(rows[s * each + i]) & value;
        at[n] = static_cast<std::uint16_t>(s);
        n += any != 0;
    }
    first[blocks] = static_cast<std::uint16_t>(n);
    return 5 * n <= steps;
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
