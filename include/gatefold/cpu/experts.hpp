// The expert stage of forward: two grouped products with everything around them fused.
//
//     x[T, H] ── gather, convert ──> tiles ──× [gate | up]──> activation ──> tiles ──× down──> sum[t, :] += w · z
//                                                    └──> pre-activations, activations (training)
//
//     run_experts<E>(ctx, scratch, input, weights, limit, order, keep, target)
//         E        expert<H, F, activation, T, bias>                         (cpu/experts_layout.hpp)
//         scratch  expert_scratch_bytes<E>(ctx.threads(), rows) bytes, aligned to 64; nothing else is allocated
//         input    expert_input<X>{groups, rows_of<X>}: rows [groups.begin(e), groups.end(e)) of expert e, gathered
//         from x
//                  by pairs / slots, times factor where given (rounded to T); X is T or float
//         weights  hub_weights<T> or packed_weights<T> (pack_expert<E>): the same bits
//         order    of bf16 sums; resolved by resolve()
//         keep     kept_activations<T>{pre, activated}: [rows, 2F or F] and [rows, F], either may be null
//         target   combine_into<sum>: sum[token, :] = fma(weight[pair], z, sum[token, :]), experts ascending
//                  rows_into<sum>:    z[row, :]
//
// Every sum is one chain in the order of the form (cpu/gemm.hpp), so a row has the same bits whatever rows it comes
// with, on any number of threads, packed or not. First projection: threads share one flat list of (expert, panel).
// Second: each thread owns output columns and walks the experts in order, which needs no atomics.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gatefold/cpu/experts_layout.hpp>
#include <gatefold/cpu/products.hpp>
#include <gatefold/cpu/simd/number.hpp>
#include <gatefold/ops/activation.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

template <class X>
struct expert_input {
    grouping groups;
    rows_of<X> x;
};

template <class T>
struct kept_activations {
    T* pre = nullptr;
    T* activated = nullptr;
};

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

// ---- blocking
// --------------------------------------------------------------------------------------------------------

/// How the sweep over an expert is cut. Rows of a block share a panel while it is in the caches.
template <class Form>
struct sweep_blocks {
    static constexpr int tiles = 18, rows = tiles * Form::max_rows;
    static constexpr int streams = 8;
    /// Steps of a packed panel between two visits of a row tile.
    static constexpr index_t packed_depth =
        index_t{256} * 1024 /
        (2 * lanes<typename Form::sum_type> * Form::step * static_cast<index_t>(sizeof(typename Form::stream_type)));
    /// Steps that are packed at a time when weights come in hub layout: one visit's streams fit the first-level cache.
    static constexpr index_t hub_depth(int streams_together) { return index_t{512} / streams_together; }
    static constexpr index_t hub_elements = index_t{512} * lanes<typename Form::sum_type> * Form::step;
    static constexpr index_t sum_elements = index_t{rows} * 2 * lanes<typename Form::sum_type>;
    static constexpr std::size_t bytes =
        round_up<std::size_t>(static_cast<std::size_t>(hub_elements) * sizeof(typename Form::stream_type), 64) +
        round_up<std::size_t>(static_cast<std::size_t>(sum_elements) * sizeof(typename Form::sum_type), 64);
};

template <class E, class Form>
constexpr std::size_t expert_scratch_bytes_for(int threads, index_t rows) {
    using element = typename Form::row_type;
    constexpr index_t per_step = Form::block > 1 ? 2 : 1;
    const auto tiles = [&](index_t steps) {
        return round_up(static_cast<std::size_t>(rows * steps * per_step) * sizeof(element), std::size_t{64});
    };
    return tiles(E::up_steps) + tiles(E::down_steps) + static_cast<std::size_t>(threads) * sweep_blocks<Form>::bytes +
           64;
}

/// Scratch for at most `rows` rows of all experts together, in any order of sums.
template <class E>
constexpr std::size_t expert_scratch_bytes(int threads, index_t rows) {
    const std::size_t a = expert_scratch_bytes_for<E, form_for<typename E::value_type, order::portable>>(threads, rows);
    const std::size_t b = expert_scratch_bytes_for<E, form_for<typename E::value_type, order::dot>>(threads, rows);
    return a > b ? a : b;
}

// ---- one expert's panels against its rows --------------------------------------------------------------------------

/// Streams that lie packed in memory.
template <class E, class Form>
struct packed_streams {
    static constexpr bool in_place = true;
    const typename Form::stream_type* data;
    index_t stream;
};

/// Streams that are packed piece by piece from hub layout; row(panel, half, i) gives their rows.
template <class E, class Form, class Row>
struct hub_streams {
    static constexpr bool in_place = false;
    index_t columns;
    Row row;
};

/// What `multiply` needs to know of a projection.
template <class Form>
struct projection_shape {
    index_t steps;
    index_t row_elements;  ///< of a packed row
};

/// Multiplies panels [p0, p1) with all rows of an expert; done(panel, first row, height, c, row distance of c) gets
/// each finished tile.
template <class E, class Form, class Streams, class Done>
GATEFOLD_INLINE void sweep(const row_tiles& tiles, const typename Form::row_type* rows, projection_shape<Form> shape,
                           const Streams& streams, index_t p0, index_t p1, std::byte* scratch, Done done) {
    using blocks = sweep_blocks<Form>;
    using T = typename Form::stream_type;
    using sum = typename Form::sum_type;
    constexpr int W = lanes<sum>;
    T* packed = reinterpret_cast<T*>(scratch);
    sum* c = reinterpret_cast<sum*>(
        scratch + round_up<std::size_t>(static_cast<std::size_t>(blocks::hub_elements) * sizeof(T), 64));

    for (index_t t0 = 0; t0 < tiles.tiles; t0 += blocks::tiles) {
        const index_t t1 = t0 + blocks::tiles < tiles.tiles ? t0 + blocks::tiles : tiles.tiles;
        const index_t r0 = tiles.begin(t0);
        const int tallest = static_cast<int>(t1 - t0 == 1 ? tiles.begin(t1) - r0 : Form::max_rows);
        const int together = t1 - t0 == 1 ? most_streams<Form>(tallest) / 2 : 1;
        for (index_t p = p0; p < p1;) {
            const int panels = p + together <= p1 ? together : 1;
            const index_t depth = !Streams::in_place ? blocks::hub_depth(2 * panels)
                                  : t1 - t0 == 1     ? shape.steps
                                                     : blocks::packed_depth;
            const index_t row = index_t{panels} * 2 * W;
            for (index_t s0 = 0; s0 < shape.steps; s0 += depth) {
                const index_t steps = shape.steps - s0 < depth ? shape.steps - s0 : depth;
                const T* b = packed;
                index_t stream = steps * Form::step * W;
                lookahead ahead{0, reinterpret_cast<const char*>(packed), 0, 0};
                if constexpr (Streams::in_place) {
                    stream = streams.stream;
                    b = streams.data + 2 * p * stream + s0 * Form::step * W;
                    ahead.distance = t1 - t0 == 1 ? 4096 : 1024;
                    // The next piece: the rest of this panel, or the next one.
                    const T* next = s0 + steps < shape.steps ? b + steps * Form::step * W
                                                             : streams.data + 2 * (p + panels) * stream;
                    if (t1 - t0 > 1) {
                        ahead.next = reinterpret_cast<const char*>(next);
                        ahead.half = stream * static_cast<index_t>(sizeof(T));
                    }
                } else {
                    for (int j = 0; j < 2 * panels; ++j)
                        pack_stream<E>(packed + j * stream, s0, steps, streams.columns,
                                       [&](int i) { return streams.row(p + j / 2, j % 2, i); });
                }
                for (index_t t = t0; t < t1; ++t) {
                    const index_t begin = tiles.begin(t);
                    const int height = static_cast<int>(tiles.begin(t + 1) - begin);
                    const auto* a = rows + begin * shape.row_elements + s0 * height * (Form::block > 1 ? 2 : 1);
                    lookahead mine = ahead;
                    if (Streams::in_place && t1 - t0 > 1) {
                        const index_t line = W * Form::step * static_cast<index_t>(sizeof(T));
                        mine.advance = line / (t1 - t0);
                        mine.next += (t - t0) * mine.advance * steps;
                    }
                    sum* to = c + (begin - r0) * row;
                    const kernel<Form> multiply = kernel_for_panels<Form>(panels, height);
                    if constexpr (Form::flushes) {
                        const flush_subnormals mode;
                        multiply(steps, a, b, stream, to, row, s0 == 0, mine);
                    } else {
                        multiply(steps, a, b, stream, to, row, s0 == 0, mine);
                    }
                }
            }
            for (int q = 0; q < panels; ++q)
                for (index_t t = t0; t < t1; ++t) {
                    const index_t begin = tiles.begin(t);
                    done(p + q, begin, static_cast<int>(tiles.begin(t + 1) - begin), c + (begin - r0) * row + q * 2 * W,
                         row);
                }
            p += panels;
        }
    }
}

// ---- the stage
// -------------------------------------------------------------------------------------------------------

/// Element `f` of row i of a tile of activations, in the order in which the second projection reads it.
template <class Form, class T, class Sum>
GATEFOLD_INLINE void put_activation(typename Form::row_type* tile, int height, int i, index_t f, const T* values,
                                    int count) {
    if constexpr (std::is_same_v<Form, dot_form>) {
        for (int j = 0; j < count; j += 2) std::memcpy(tile + (f + j) / 2 * height + i, values + j, 2 * sizeof(T));
    } else {
        for (int j = 0; j < count; ++j) tile[(f + j) * height + i] = static_cast<Sum>(values[j]);
    }
}

template <class E, class Form, class Context, class X, class Weights, class Target>
void run_experts_as(Context& ctx, std::byte* scratch, const expert_input<X>& in, const Weights& weights,
                    typename E::sum_type limit, const kept_activations<typename E::value_type>& keep,
                    const Target& target) {
    using T = typename E::value_type;
    using sum = typename E::sum_type;
    using element = typename Form::row_type;
    constexpr int W = E::W, max_rows = Form::max_rows;
    constexpr index_t per_step = Form::block > 1 ? 2 : 1;
    constexpr bool is_packed = std::is_same_v<Weights, packed_weights<T>>;
    constexpr projection_shape<Form> up{E::up_steps, E::up_steps * per_step},
        down{E::down_steps, E::down_steps * per_step};
    const grouping& groups = in.groups;
    const index_t rows = groups.end(groups.experts - 1), first_row = groups.begin(0);

    element* x = reinterpret_cast<element*>(scratch);
    const auto after = [](auto* p, index_t n) {
        return reinterpret_cast<std::byte*>(p) + round_up(static_cast<std::size_t>(n) * sizeof(*p), std::size_t{64});
    };
    element* activated = reinterpret_cast<element*>(after(x, rows * up.row_elements));
    std::byte* private_memory = after(activated, rows * down.row_elements);
    const auto memory_of = [&](int part) {
        return private_memory + static_cast<std::size_t>(part) * sweep_blocks<Form>::bytes;
    };

    // A part has to be worth waking a thread for.
    constexpr index_t bytes_each = 16384;
    index_t active = 0;
    for (int e = 0; e < groups.experts; ++e) active += groups.count(e) > 0;
    const index_t worth = 1 + active * static_cast<index_t>(packed_bytes<E>()) / bytes_each;
    const int parts = worth < ctx.threads() ? static_cast<int>(worth) : ctx.threads();

    // Rows: gathered, converted, tiled.
    const auto pack_rows = [&](index_t low, index_t high) {
        for (int e = 0; e < groups.experts; ++e) {
            const index_t begin = groups.begin(e), n = groups.count(e);
            if (n == 0 || begin >= high || begin + n <= low) continue;
            const row_tiles tiles(n, max_rows);
            for (index_t t = 0; t < tiles.tiles; ++t) {
                const index_t r = begin + tiles.begin(t);
                if (r < low || r >= high) continue;
                const int height = static_cast<int>(tiles.begin(t + 1) - tiles.begin(t));
                using reader =
                    std::conditional_t<Form::step == 1, row_reader<sum, X>,
                                       std::conditional_t<(Form::block > 1), rounding_reader<X>, pair_reader<X>>>;
                reader readers[std::size_t{max_rows}];
                sum factors[std::size_t{max_rows}];
                for (int i = 0; i < height; ++i) {
                    if (in.x.factor) factors[i] = static_cast<sum>(in.x.factor_of(r + i));
                    readers[i] = {in.x.row(r + i), E::width, in.x.factor ? factors + i : nullptr};
                }
                interleave(x + r * up.row_elements, height, readers, height, up.row_elements);
            }
        }
    };
    if (parts == 1 || (rows - first_row) * E::width <= 8192)
        pack_rows(first_row, rows);
    else
        ctx.parallel(parts, [&](int part) {
            pack_rows(first_row + share(rows - first_row, part, parts),
                      first_row + share(rows - first_row, part + 1, parts));
        });

    // First projection: a flat list of (expert, panel), cut where the costs are equal.
    constexpr index_t ridge = 12;
    const auto cost = [&](int e) {
        return groups.count(e) == 0 ? 0 : groups.count(e) < ridge ? ridge : groups.count(e);
    };
    index_t total = 0;
    for (int e = 0; e < groups.experts; ++e) total += cost(e) * E::up_panels;
    ctx.parallel(parts, [&](int part) {
        const index_t low = share(total, part, parts), high = share(total, part + 1, parts);
        index_t before = 0;
        for (int e = 0; e < groups.experts; ++e) {
            const index_t each = cost(e), first = before;
            before += each * E::up_panels;
            if (each == 0 || before <= low || first >= high) continue;
            const index_t p0 = first >= low ? 0 : ceil_div(low - first, each);
            const index_t p1 = before <= high ? E::up_panels : ceil_div(high - first, each);
            const index_t begin = groups.begin(e);
            const row_tiles tiles(groups.count(e), max_rows);
            const T* bias = nullptr;
            if constexpr (E::bias) bias = weights.up_bias + index_t{e} * E::up_rows;

            const auto done = [&](index_t panel, index_t r, int height, const sum* c, index_t row) {
                element* tile = activated + (begin + r) * down.row_elements;
                for (int half = 0; half < (E::gated ? 1 : 2); ++half) {
                    const index_t f = panel * E::panel_features + half * W;
                    const index_t left = E::ffn - f, there = round_up<index_t>(E::ffn, E::padding) - f;
                    if (there <= 0) continue;
                    const int count = static_cast<int>(there < W ? there : W);
                    for (int i = 0; i < height; ++i) {
                        vec<sum> value = load<sum>(c + i * row + half * W), upper = zeros<sum>();
                        if constexpr (E::gated) upper = load<sum>(c + i * row + W);
                        if constexpr (E::bias) {
                            value = add(value, load_first<sum>(bias + f, left));
                            if constexpr (E::gated) upper = add(upper, load_first<sum>(bias + E::ffn + f, left));
                        }
                        if (keep.pre && left > 0) {
                            T* pre = keep.pre + (begin + r + i) * E::up_rows + f;
                            store_first(pre, value, left);
                            if constexpr (E::gated) store_first(pre + E::ffn, upper, left);
                        }
                        alignas(64) T values[std::size_t{W}];
                        if constexpr (E::gated)
                            store(values, activate<E::act>(value, upper, broadcast<sum>(limit)));
                        else
                            store(values, activate<E::act>(value, broadcast<sum>(limit)));
                        for (index_t j = left > 0 ? left : 0; j < count; ++j) values[j] = T{};
                        put_activation<Form, T, sum>(tile, height, i, f, values, count);
                        if (keep.activated && left > 0)
                            for (index_t j = 0; j < (left < W ? left : W); ++j)
                                keep.activated[(begin + r + i) * E::ffn + f + j] = values[j];
                    }
                }
                // Behind the last panel the second projection reads zeros up to a whole block of steps.
                if (panel == E::up_panels - 1) {
                    alignas(64) const T nothing[std::size_t{W}] = {};
                    for (index_t f = index_t{E::up_panels} * E::panel_features;
                         f < round_up<index_t>(E::ffn, E::padding); f += W)
                        for (int i = 0; i < height; ++i) put_activation<Form, T, sum>(tile, height, i, f, nothing, W);
                }
            };
            const element* a = x + begin * up.row_elements;
            if constexpr (is_packed) {
                const packed_streams<E, Form> streams{
                    reinterpret_cast<const T*>(weights.data) + index_t{e} * E::packed_elements, E::up_stream};
                sweep<E, Form>(tiles, a, up, streams, p0, p1, memory_of(part), done);
            } else {
                const T* matrix = weights.up + index_t{e} * E::up_rows * E::width;
                const auto row = [=](index_t panel, int half, int i) { return up_row<E>(matrix, panel, half, i); };
                const hub_streams<E, Form, decltype(row)> streams{E::width, row};
                sweep<E, Form>(tiles, a, up, streams, p0, p1, memory_of(part), done);
            }
        }
    });

    // Second projection: a thread owns columns, experts in ascending order.
    ctx.parallel(parts, [&](int part) {
        const index_t p0 = share(E::down_panels, part, parts), p1 = share(E::down_panels, part + 1, parts);
        constexpr bool combines = std::is_same_v<Target, combine_into<sum>>;
        if (p0 == p1) return;
        if constexpr (combines) {
            const index_t c0 = p0 * 2 * W, c1 = p1 * 2 * W < E::width ? p1 * 2 * W : E::width;
            if (target.first)
                for (index_t t = 0; t < target.tokens; ++t)
                    for (index_t c = c0; c < c1; ++c) target.sums[t * target.stride + c] = 0;
        }
        for (int e = 0; e < groups.experts; ++e) {
            if (groups.count(e) == 0) continue;
            const index_t begin = groups.begin(e);
            const row_tiles tiles(groups.count(e), max_rows);
            const T* bias = nullptr;
            if constexpr (E::bias) bias = weights.down_bias + index_t{e} * E::width;
            const auto done = [&](index_t panel, index_t r, int height, const sum* c, index_t row) {
                for (int i = 0; i < height; ++i) {
                    sum* to;
                    sum weight = 1;
                    if constexpr (combines) {
                        const index_t pair = target.pairs ? target.pairs[begin + r + i] : begin + r + i;
                        to = target.sums + pair / target.slots * target.stride;
                        if (target.weights) weight = target.weights[pair];
                    } else {
                        to = target.rows + (begin + r + i) * target.stride;
                    }
                    for (int half = 0; half < 2; ++half) {
                        const index_t column = (2 * panel + half) * W, left = E::width - column;
                        if (left <= 0) break;
                        vec<sum> z = load<sum>(c + i * row + half * W);
                        if constexpr (E::bias) z = add(z, load_first<sum>(bias + column, left));
                        if constexpr (combines)
                            z = number<vec<sum>>::fma(broadcast(weight), z, load_first<sum>(to + column, left));
                        store_first(to + column, z, left);
                    }
                }
            };
            const element* a = activated + begin * down.row_elements;
            if constexpr (is_packed) {
                const packed_streams<E, Form> streams{
                    reinterpret_cast<const T*>(weights.data) + index_t{e} * E::packed_elements + E::up_elements,
                    E::down_stream};
                sweep<E, Form>(tiles, a, down, streams, p0, p1, memory_of(part), done);
            } else {
                const T* matrix = weights.down + index_t{e} * E::width * E::ffn;
                const auto row = [=](index_t panel, int half, int i) { return down_row<E>(matrix, panel, half, i); };
                const hub_streams<E, Form, decltype(row)> streams{E::ffn, row};
                sweep<E, Form>(tiles, a, down, streams, p0, p1, memory_of(part), done);
            }
        }
    });
}

/// The stage; see the top of this file.
template <class E, class Context, class X, class Weights, class Target>
void run_experts(Context& ctx, std::byte* scratch, const expert_input<X>& in, const Weights& weights,
                 typename E::sum_type limit, order sums, const kept_activations<typename E::value_type>& keep,
                 const Target& target) {
    using T = typename E::value_type;
    if constexpr (std::is_same_v<T, bf16>) {
        if (resolve(sums) == order::dot)
            return run_experts_as<E, dot_form>(ctx, scratch, in, weights, limit, keep, target);
    }
    run_experts_as<E, form_for<T, order::portable>>(ctx, scratch, in, weights, limit, keep, target);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
