// What becomes of an expert's finished sums, one tile at a time: the two ends of a projection.
//
//     first projection   sums ──> bias, activation, dropout ──> tiles of the second one
//                                      └──> pre-activations, activations (training)
//     second projection  sums ──> bias ──> sum[token, :] += w · z, or a row of their own
//
// Whoever sweeps a projection hands over each tile of sums while it is still in the first-level cache.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include <gatefold/cpu/experts/dropout.hpp>
#include <gatefold/cpu/experts/layout.hpp>
#include <gatefold/cpu/gemm/gemm.hpp>
#include <gatefold/cpu/gemm/pack.hpp>
#include <gatefold/cpu/simd/number.hpp>
#include <gatefold/ops/activation.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Adds weighted expert outputs to the sums of their tokens; `first` sets the sums of all `tokens` to zero before.
template <class Sum>
struct combine_into {
    Sum* sums;
    index_t stride, tokens;
    const Sum* weights = nullptr;  ///< by pair; null: one
    const std::int32_t* pairs = nullptr;
    int slots = 1;
    bool first = true;
};

template <class Sum>
struct rows_into {
    Sum* rows;
    index_t stride;
};

template <class Sum>
GATEFOLD_INLINE const Sum* rows_of_target(const combine_into<Sum>& target) {
    return target.sums;
}
template <class Sum>
GATEFOLD_INLINE const Sum* rows_of_target(const rows_into<Sum>& target) {
    return target.rows;
}

/// Where finished sums, or rows, are rounded to, once and by the part that finished them; null: nowhere.
template <class T>
struct round_into {
    T* to = nullptr;
    index_t stride = 0, rows = 0;
    bool accumulate = false;  ///< adds to what is there
};

/// Rounds columns [c0, c1) of row t of `sums`.
template <class Sum, class T>
GATEFOLD_INLINE void round_row(const Sum* sums, index_t stride, const round_into<T>& result, index_t t, index_t c0,
                               index_t c1) {
    for (index_t c = c0; c < c1; c += lanes<Sum>) {
        T* to = result.to + t * result.stride + c;
        vec<Sum> sum = load_first<Sum>(sums + t * stride + c, c1 - c);
        if (result.accumulate) sum = add(sum, load_first<Sum>(to, c1 - c));
        store_first(to, sum, c1 - c);
    }
}

/// Elements of a packed row per step: a pair of bf16 is one word, or two elements.
template <class Form>
inline constexpr index_t step_rows = Form::block > 1 ? 2 : 1;

/// After the first projection: bias, activation, dropout, and the result where the second projection reads it.
template <class Form, activation Act, class T, bool Bias, class Drop>
struct activate_tile {
    using sum = typename Form::sum_type;
    static constexpr int W = lanes<sum>;
    static constexpr bool gated = is_gated(Act);
    static constexpr int panel_features = gated ? W : 2 * W;

    int ffn;
    index_t padded, last_panel;
    typename Form::row_type* tiles;  ///< activations of this expert's rows
    const T* bias;
    vec<sum> limit;
    T *pre, *activated;  ///< kept for training; of this expert's rows, or null
    [[no_unique_address]] Drop drop;

    static constexpr index_t numbers = Form::step == 2 && Form::block == 1 ? 2 : 1;  ///< in an element of a row
    static constexpr bool narrow = numbers == 2 && GATEFOLD_AVX512;                  ///< W features are half a register
    /// Activations of a tile's rows on their way into the order of the tile.
    static constexpr int rows_held = Form::by_tiles ? 1 : round_up(Form::max_rows, W);
    using square = typename Form::row_type[std::size_t{rows_held}][std::size_t{narrow ? W / 2 : W}];

    /// Where the tile that begins with row r has feature f of its row i, or of all its rows.
    GATEFOLD_INLINE T* tile_row(index_t r, int height, int i, index_t f) const {
        return tiles + r * padded + f / 32 * 32 * height + 32 * i + f % 32;
    }
    GATEFOLD_INLINE typename Form::row_type* column(index_t r, int height, index_t f) const {
        return tiles + r * (padded / Form::step) * step_rows<Form> + f / numbers * height;
    }
    GATEFOLD_INLINE void hold(square& held, index_t r, int height, int i, index_t f, vec<sum> v) const {
        if constexpr (Form::by_tiles) {
            store(tile_row(r, height, i, f), v);
        } else if constexpr (numbers == 2) {
            store(reinterpret_cast<T*>(held[i]), v);
        } else if constexpr (std::is_same_v<T, sum>) {
            store(held[i], v);
        } else {
            T rounded[std::size_t{W}];
            store(rounded, v);
            store(held[i], load<sum>(rounded));
        }
    }
    GATEFOLD_INLINE void put(const square& held, index_t r, int height, index_t f) const {
        const index_t count = (padded - f < W ? padded - f : W) / numbers;
        if constexpr (narrow)
            interleave_halves(column(r, height, f), height, held[0], count);
        else if constexpr (!Form::by_tiles)
            for (int first = 0; first < height; first += W)
                interleave_square(column(r, height, f), height, held[0], first, count);
    }

    /// Stores the pre-activations of W features or less, as they are once a bias is added.
    GATEFOLD_NOINLINE void keep(index_t r, int height, index_t f, index_t left, const sum* c, index_t row) const {
        T* to = pre + r * (gated ? 2 : 1) * ffn + f;
        for (int i = 0; i < height; ++i, c += row) {
            for (int j = 0; j < (gated ? 2 : 1); ++j) {
                vec<sum> value = load<sum>(c + j * W);
                if constexpr (Bias) value = add(value, load_first<sum>(bias + j * ffn + f, left));
                store_first(to, value, left);
                to += ffn;
            }
        }
    }
    /// W features that all exist, and are kept nowhere else: nothing but arithmetic, so that rows overlap.
    GATEFOLD_NOINLINE void whole(index_t r, int height, index_t f, const sum* c, index_t row) const {
        const vec<sum> bound = limit;
        [[maybe_unused]] vec<sum> of_value, of_upper;
        if constexpr (Bias) of_value = load<sum>(bias + f);
        if constexpr (Bias && gated) of_upper = load<sum>(bias + ffn + f);
        alignas(64) square held;
        for (int i = 0; i < height; ++i, c += row) {
            vec<sum> value = load<sum>(c);
            if constexpr (Bias) value = add(value, of_value);
            if constexpr (gated) {
                vec<sum> upper = load<sum>(c + W);
                if constexpr (Bias) upper = add(upper, of_upper);
                value = activate<Act>(value, upper, bound);
            } else {
                value = activate<Act>(value, bound);
            }
            hold(held, r, height, i, f, value);
        }
        put(held, r, height, f);
    }
    /// The same for any number of features, zeros behind them.
    GATEFOLD_NOINLINE void edge(index_t r, int height, index_t f, index_t left, const sum* c, index_t row) const {
        alignas(64) square held;
        for (int i = 0; i < height; ++i, c += row) {
            vec<sum> value = load<sum>(c);
            if constexpr (Bias) value = add(value, load_first<sum>(bias + f, left));
            if constexpr (gated) {
                vec<sum> upper = load<sum>(c + W);
                if constexpr (Bias) upper = add(upper, load_first<sum>(bias + ffn + f, left));
                value = activate<Act>(value, upper, limit);
            } else {
                value = activate<Act>(value, limit);
            }
            value = drop.apply(value, r + i, f, left);
            if (activated) store_first(activated + (r + i) * ffn + f, value, left);
            hold(held, r, height, i, f, first_of(value, left));
        }
        put(held, r, height, f);
    }

    GATEFOLD_INLINE void operator()(index_t panel, index_t r, int height, const sum* c, index_t row) const {
        for (int half = 0; half < (gated ? 1 : 2); ++half, c += W) {
            const index_t f = panel * panel_features + half * W, left = ffn - f;
            if (padded <= f) break;
            if (pre) keep(r, height, f, left, c, row);
            if (std::is_same_v<Drop, no_dropout> && left >= W && !activated)
                whole(r, height, f, c, row);
            else
                edge(r, height, f, left, c, row);
        }
        // Behind the last panel the second projection reads zeros up to a whole block of steps.
        if (panel == last_panel) {
            const index_t f = (last_panel + 1) * panel_features, missing = f < padded ? padded - f : 0;
            if constexpr (Form::by_tiles) {
                for (int i = 0; i < height && missing > 0; ++i)
                    std::memset(static_cast<void*>(tile_row(r, height, i, f)), 0,
                                static_cast<std::size_t>(missing) * sizeof(T));
            } else {
                std::memset(static_cast<void*>(column(r, height, f)), 0,
                            static_cast<std::size_t>(missing / numbers * height) * sizeof(typename Form::row_type));
            }
        }
    }
};

/// After the second projection: bias, then into the token's sum or the row's place.
template <class Form, class T, bool Bias, class Target>
struct deliver_tile {
    using sum = typename Form::sum_type;
    static constexpr int W = lanes<sum>;
    static constexpr bool combines = std::is_same_v<Target, combine_into<sum>>;

    int width;
    index_t begin;  ///< first row of the expert
    const T* bias;
    const Target& target;

    GATEFOLD_INLINE void operator()(index_t panel, index_t r, int height, const sum* c, index_t row) const {
        const index_t first = 2 * panel * W, left = width - first;
        if (left >= 2 * W)
            deliver(r, height, first, index_t{W}, index_t{W}, c, row);
        else
            deliver(r, height, first, left, left - W, c, row);
    }

    /// Columns [first, first + left) and the `beyond` ones of the second register.
    GATEFOLD_INLINE void deliver(index_t r, int height, index_t first, index_t left, index_t beyond, const sum* c,
                                 index_t row) const {
        const Target into = target;  // a copy, which no store through `to` can change
        for (int i = 0; i < height; ++i, c += row) {
            sum* to;
            sum weight = 1;
            if constexpr (combines) {
                index_t pair = begin + r + i, token = pair;
                if (into.pairs) {
                    // Pairs are counted in 32 bits: the shorter division.
                    const auto at = static_cast<std::uint32_t>(into.pairs[pair]);
                    pair = at;
                    token = at / static_cast<std::uint32_t>(into.slots);
                }
                to = into.sums + token * into.stride;
                if (into.weights) weight = into.weights[pair];
            } else {
                to = into.rows + (begin + r + i) * into.stride;
            }
            add_part(c, to, weight, first, left);
            if (beyond > 0) add_part(c + W, to, weight, first + W, beyond);
        }
    }
    GATEFOLD_INLINE void add_part(const sum* c, sum* to, sum weight, index_t column, index_t left) const {
        vec<sum> z = load<sum>(c);
        if constexpr (Bias) z = add(z, load_first<sum>(bias + column, left));
        if constexpr (combines) z = number<vec<sum>>::fma(broadcast(weight), z, load_first<sum>(to + column, left));
        store_first(to + column, z, left);
    }
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
