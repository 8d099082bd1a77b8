// The expert stage of forward: two grouped products with everything around them fused.
//
//     x[T, H] ── gather, convert ──> tiles ──× [gate | up]──> activation ──> tiles ──× down──> sum[t, :] += w · z
//                                                    └──> pre-activations, activations (training)
//
//     run_experts<E>(ctx, scratch, input, weights, limit, order, keep, target, drop)
//         E        expert<H, F, activation, T, bias>                         (cpu/experts/layout.hpp)
//         scratch  expert_scratch_bytes<E>(ctx.threads(), rows) bytes, aligned to 64; nothing else is allocated
//         input    expert_input<X>{groups, rows_of<X>}: rows [groups.begin(e), groups.end(e)) of expert e, gathered
//                  from x by pairs / slots, times factor where given (rounded to T); X is T or float. Phases that have
//                  to come first, as those of a router, run in the stage's region of threads
//         weights  hub_weights<T> or packed_weights<T> (pack_expert<E>): the same bits
//         order    of bf16 sums; resolved by resolve()
//         drop     no_dropout, or expert_dropout: behind the activation               (cpu/experts/dropout.hpp)
//         keep     kept_activations<T>{pre, activated}: [rows, 2F or F] and [rows, F], either may be null
//         target   combine_into<sum>: sum[token, :] = fma(weight[pair], z, sum[token, :]), experts ascending
//                  rows_into<sum>:    z[row, :]
//         result   round_into<T>: where the target's rows are rounded to when all experts are done, or nowhere
//
// Every sum is one chain in the order of the form (cpu/gemm/gemm.hpp), so a row has the same bits whatever rows it
// comes with, on any number of threads, packed or not. First projection: threads share one flat list of (expert,
// panel). Second: each thread owns output columns and walks the experts in order, which needs no atomics.
#pragma once

#include <algorithm>
#include <cstddef>

#include <gatefold/core/workspace.hpp>
#include <gatefold/cpu/experts/dropout.hpp>
#include <gatefold/cpu/experts/finish.hpp>
#include <gatefold/cpu/experts/layout.hpp>
#include <gatefold/cpu/experts/order.hpp>
#include <gatefold/cpu/experts/sweep.hpp>
#include <gatefold/cpu/experts/tasks.hpp>
#include <gatefold/cpu/experts/tiles.hpp>
#include <gatefold/cpu/gemm/products.hpp>
#include <gatefold/cpu/phases.hpp>
#include <gatefold/ops/activation.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

template <class X>
struct expert_input {
    grouping groups;
    rows_of<X> x;
    /// What fills the arrays that `groups` and `x` point to, with `most_rows` rows at most; null: they are filled.
    const phase_list* before = nullptr;
    index_t most_rows = 0;
};

template <class T>
struct kept_activations {
    T* pre = nullptr;
    T* activated = nullptr;
};

// ---- memory

/// Elements behind packed rows that a matrix unit reads as rows of the last tile, whatever they are: 15 rows of 64
/// bytes, apart from what other threads write meanwhile.
template <class Form>
inline constexpr index_t elements_behind = Form::by_tiles ? 15 * 32 : 0;

template <class E, class Form>
constexpr std::size_t expert_scratch_bytes_for(int threads, index_t rows) {
    const auto tiles = [&](index_t steps) {
        const index_t elements = rows * steps * step_rows<Form> + elements_behind<Form>;
        return round_up(static_cast<std::size_t>(elements) * sizeof(typename Form::row_type), memory_alignment);
    };
    const std::size_t order = round_up(static_cast<std::size_t>(rows) * sizeof(ordered_expert), memory_alignment);
    return tiles(E::up_steps) + tiles(E::down_steps) + order +
           static_cast<std::size_t>(threads) * (sizeof(task_position) + sweep_blocks<Form>::bytes);
}

/// Scratch for at most `rows` rows of all experts together, in any order of sums.
template <class E>
constexpr std::size_t expert_scratch_bytes(int threads, index_t rows) {
    using T = typename E::value_type;
    std::size_t bytes = (std::max)(expert_scratch_bytes_for<E, form_for<T, order::portable>>(threads, rows),
                                   expert_scratch_bytes_for<E, form_for<T, order::dot>>(threads, rows));
#if GATEFOLD_AMX
    if constexpr (std::is_same_v<T, bf16>)
        bytes = (std::max)(bytes, expert_scratch_bytes_for<E, tile_form<machine_tiles>>(threads, rows));
#endif
    return bytes;
}

// ---- the rows of the first projection

/// Brings the rows [low, high) that begin a tile there into the order of the kernels: gathered, scaled, converted.
template <class Form, class X>
GATEFOLD_NOINLINE void pack_rows(const grouping& groups, const rows_of<X>& x, index_t width, index_t steps, index_t low,
                                 index_t high, typename Form::row_type* to) {
    using sum = typename Form::sum_type;
    using reader =
        std::conditional_t<Form::step == 1, row_reader<sum, X>,
                           std::conditional_t<Form::block == 1 || Form::by_tiles, pair_reader<X>, rounding_reader<X>>>;
    const index_t row_elements = steps * step_rows<Form>;
    for (int e = 0; e < groups.experts; ++e) {
        const index_t begin = groups.begin(e), n = groups.count(e);
        if (n == 0 || begin >= high || begin + n <= low) continue;
        const typename Form::tiles_type tiles(n, Form::max_rows);
        for (index_t t = 0; t < tiles.tiles; ++t) {
            const index_t r = begin + tiles.begin(t);
            if (r < low || r >= high) continue;
            const int height = static_cast<int>(tiles.begin(t + 1) - tiles.begin(t));
            reader readers[std::size_t{Form::max_rows}];
            sum factors[std::size_t{Form::max_rows}];
            for (int i = 0; i < height; ++i) {
                if (x.factor) factors[i] = static_cast<sum>(x.factor_of(r + i));
                readers[i] = {x.row(r + i), width, x.factor ? factors + i : nullptr};
            }
            if constexpr (Form::by_tiles)
                stack_rows(to + r * row_elements, height, readers, steps);
            else
                interleave(to + r * row_elements, height, readers, height, row_elements);
        }
    }
}

// ---- the stage

/// The sweep of a form: on vectors, or on a matrix unit.
template <class Form, class Done>
GATEFOLD_INLINE void sweep_with(const typename Form::tiles_type& tiles, const typename Form::row_type* rows,
                                index_t steps, const panel_source<typename Form::stream_type>& source, index_t p0,
                                index_t p1, std::byte* scratch, const Done& done) {
    if constexpr (Form::by_tiles) {
        typename Form::unit_type unit;
        sweep_tiles(unit, tiles, rows, steps, source, p0, p1, scratch, done);
    } else {
        sweep<Form>(tiles, rows, steps, source, p0, p1, scratch, done);
    }
}

/// What the stage needs to know of an expert's shape; constants of E.
struct expert_shape {
    int width, ffn, up_rows;
    index_t up_panels, down_panels, up_steps, down_steps, up_stream, down_stream, up_elements, packed_elements, padded;
};
template <class E>
inline constexpr expert_shape shape_of{
    E::width,      E::ffn,       E::up_rows,     E::up_panels,   E::down_panels,     E::up_steps,
    E::down_steps, E::up_stream, E::down_stream, E::up_elements, E::packed_elements, round_up(E::ffn, E::padding)};

/// The weights of one call, hub layout or packed; panels of expert e.
template <class T, int W, bool Gated>
struct panels_of {
    const T *packed, *up, *down, *up_bias, *down_bias;
    const expert_shape& shape;

    /// Panels of expert e, behind which the part goes on with panel p0 of expert `then`.
    GATEFOLD_INLINE panel_source<T> up_panels(index_t e, index_t then, index_t p0) const {
        if (packed)
            return {packed + e * shape.packed_elements,
                    packed + then * shape.packed_elements + 2 * p0 * shape.up_stream,
                    shape.up_stream,
                    {}};
        const T* matrix = up + e * shape.up_rows * shape.width;
        return {nullptr, up + (then * shape.up_rows + p0 * (Gated ? W : 2 * W)) * shape.width, 0,
                Gated ? panel_rows<T>{matrix, shape.width, W, shape.ffn, shape.ffn}
                      : panel_rows<T>{matrix, shape.width, 2 * W, 0, shape.ffn}};
    }
    GATEFOLD_INLINE panel_source<T> down_panels(index_t e, index_t then, index_t p0) const {
        if (packed) {
            const T* first = packed + shape.up_elements;
            return {first + e * shape.packed_elements,
                    first + then * shape.packed_elements + 2 * p0 * shape.down_stream,
                    shape.down_stream,
                    {}};
        }
        return {nullptr,
                down + (then * shape.width + p0 * 2 * W) * shape.ffn,
                0,
                {down + e * shape.width * shape.ffn, shape.ffn, 2 * W, 0, shape.width}};
    }
};

/// Whether the kernels fetch panels of other experts than their own: those of vectors, over plain packed weights.
template <class Form, class Panels>
inline constexpr bool takes_turns = !Form::by_tiles && requires(const Panels& weights) {
    weights.packed;
};

/// What is fetched along a walk; `source` has the panels of the first expert.
template <class Form, class T>
panel_fetch fetch_of(const panel_walk& walk, const panel_source<T>& source, const expert_shape& shape, index_t steps) {
    using blocks = turn_blocks<Form>;
    constexpr auto size = static_cast<index_t>(sizeof(T));
    return {walk,
            reinterpret_cast<const char*>(source.packed),
            shape.packed_elements * size,
            source.stream * size,
            steps * blocks::step_bytes,
            ridge_of<Form>,
            blocks::ahead_of_turns};
}

template <class Form, activation Act, class T, bool Bias, class Context, class X, class Target, class Panels,
          class Drop = no_dropout>
GATEFOLD_NOINLINE void run_stage(Context& ctx, std::byte* scratch, const expert_shape& shape, const expert_input<X>& in,
                                 const Panels& weights, typename Form::sum_type limit, const kept_activations<T>& keep,
                                 const Target& target, const Drop& drop = {}, const round_into<T>& result = {}) {
    using sum = typename Form::sum_type;
    using element = typename Form::row_type;
    using tiles_type = typename Form::tiles_type;
    constexpr int W = lanes<sum>, max_rows = Form::max_rows;
    const index_t up_row = shape.up_steps * step_rows<Form>, down_row = shape.down_steps * step_rows<Form>;
    const grouping& groups = in.groups;
    const index_t most_rows = in.before ? in.most_rows : groups.end(groups.experts - 1);

    carver memory(scratch);
    element* x = memory.take<element>(most_rows * up_row + elements_behind<Form>);
    element* activated = memory.take<element>(most_rows * down_row + elements_behind<Form>);
    [[maybe_unused]] ordered_expert* order = memory.take<ordered_expert>(most_rows);
    task_position* positions = memory.take<task_position>(ctx.threads());
    std::byte* own = memory.take<std::byte>(0);
    const auto own_of = [&](int part) { return own + static_cast<std::size_t>(part) * sweep_blocks<Form>::bytes; };

    // A part has to be worth waking a thread for.
    constexpr index_t bytes_each = 16384, element_bytes = sizeof(T);
    const auto bytes_of = [&](index_t experts) { return experts * shape.packed_elements * element_bytes; };
    index_t active = most_rows < groups.experts ? most_rows : groups.experts;
    if (!in.before) active = active_experts(groups);
    const index_t worth = 1 + bytes_of(active) / bytes_each;
    const int parts = worth < ctx.threads() ? static_cast<int>(worth) : ctx.threads();

    const auto next_of = [&](int e) {
        for (int f = e + 1; f < groups.experts; ++f)
            if (groups.count(f) > 0) return f;
        return e;
    };

    // First projection: one flat list of (expert, panel). Experts of many and of few rows take turns where that is
    // worth it.
    task_list tasks(groups, shape.up_panels, ridge_of<Form>, max_rows, parts, positions);
    merged_experts merged{nullptr, 0, 0};
    const auto decide = [&] {
        tasks.cut();
        if constexpr (takes_turns<Form, Panels>)
            if (weights.packed && bytes_of(active_experts(groups)) > turn_blocks<Form>::cached &&
                worth_merging(groups, ridge_of<Form>))
                merged = merge_experts(groups, ridge_of<Form>, order);
    };
    const auto up_of = [&](int part, int e, const auto& source, index_t p0, index_t p1) {
        const index_t begin = groups.begin(e);
        sweep_with<Form>(tiles_type(groups.count(e), max_rows), x + begin * up_row, shape.up_steps, source, p0, p1,
                         own_of(part),
                         activate_tile<Form, Act, T, Bias, Drop>{
                             shape.ffn, shape.padded, shape.up_panels - 1, activated + begin * down_row,
                             weights.up_bias + (Bias ? index_t{e} * shape.up_rows : 0), broadcast<sum>(limit),
                             keep.pre ? keep.pre + begin * shape.up_rows : nullptr,
                             keep.activated ? keep.activated + begin * shape.ffn : nullptr, drop.of_expert(e, begin)});
    };
    const auto down_of = [&](int part, int e, const auto& source, index_t p0, index_t p1) {
        const index_t begin = groups.begin(e);
        sweep_with<Form>(tiles_type(groups.count(e), max_rows), activated + begin * down_row, shape.down_steps, source,
                         p0, p1, own_of(part),
                         deliver_tile<Form, T, Bias, Target>{
                             shape.width, begin, weights.down_bias + (Bias ? index_t{e} * shape.width : 0), target});
    };

    const auto up = [&](int part) {
        if constexpr (takes_turns<Form, Panels>) {
            if (merged.active > 0) {
                using blocks = turn_blocks<Form>;
                const auto task = [&](int p) {
                    return task_at(merged, blocks::together, shape.up_panels, tasks.begin_of(p),
                                   [&](int e) { return tasks.cost(e); });
                };
                auto walk = panel_walk::of_first(merged, blocks::together, shape.up_panels, task(part), task(part + 1));
                panel_fetch fetch = fetch_of<Form>(walk, weights.up_panels(0, 0, 0), shape, shape.up_steps);
                for (; !walk.done(); walk.next()) {
                    auto source = weights.up_panels(walk.expert(), walk.expert(), 0);
                    source.fetch = &fetch;
                    up_of(part, walk.expert(), source, walk.panel(), walk.panel() + 1);
                }
                return;
            }
        }
        for (task_walk walk(tasks, part); walk.there();) {
            const panel_run run = walk.next();
            auto source = weights.up_panels(run.expert, walk.there() ? walk.expert() : run.expert, walk.panel());
            // Behind its last panel a part reads its first ones of the second projection.
            if (!walk.there())
                source.then = weights.down_panels(run.expert, next_of(-1), share(shape.down_panels, part, parts)).then;
            up_of(part, run.expert, source, run.p0, run.p1);
        }
    };

    // Second projection: a part owns output columns, in each of which the experts come in ascending order.
    const auto down = [&](int part) {
        const index_t p0 = share(shape.down_panels, part, parts), p1 = share(shape.down_panels, part + 1, parts);
        if (p0 == p1) return;
        const index_t c0 = p0 * 2 * W, c1 = p1 * 2 * W < shape.width ? p1 * 2 * W : shape.width;
        if constexpr (std::is_same_v<Target, combine_into<sum>>) {
            if (target.first)
                for (index_t t = 0; t < target.tokens; ++t)
                    for (index_t c = c0; c < c1; ++c) target.sums[t * target.stride + c] = 0;
        }
        if (merged.active > 0) {
            if constexpr (takes_turns<Form, Panels>) {
                auto walk = panel_walk::of_second(merged, p0, p1);
                panel_fetch fetch = fetch_of<Form>(walk, weights.down_panels(0, 0, 0), shape, shape.down_steps);
                for (; !walk.done(); walk.next()) {
                    auto source = weights.down_panels(walk.expert(), walk.expert(), p0);
                    source.fetch = &fetch;
                    down_of(part, walk.expert(), source, walk.panel(), walk.panel() + 1);
                }
            }
        } else {
            for (int e = 0; e < groups.experts; ++e)
                if (groups.count(e) > 0) down_of(part, e, weights.down_panels(e, next_of(e), p0), p0, p1);
        }
        if (result.to)
            for (index_t t = 0; t < result.rows; ++t)
                round_row(rows_of_target(target), target.stride, result, t, c0, c1);
    };

    // Few rows are packed by one part, while the first weights come.
    const int packing = most_rows * shape.width > 8192 ? parts : 1;
    const auto pack = [&](int part) {
        const index_t first = groups.begin(0), rows = groups.end(groups.experts - 1) - first;
        if (part == 0) decide();
        if (packing == 1 && rows > 0) fetch_beginning(weights.up_panels(next_of(-1), next_of(-1), 0));
        pack_rows<Form>(groups, in.x, shape.width, shape.up_steps, first + share(rows, part, packing),
                        first + share(rows, part + 1, packing), x);
    };
    phase_list phases;
    if (in.before) phases = *in.before;
    phases.add(packing, pack);
    phases.add(parts, up);
    phases.add(parts, down);
    ctx.parallel(phases);
}

/// Whether weights hold their matrices in a form of their own and know how the stage reads it.
template <class Weights>
inline constexpr bool brings_stage = requires {
    Weights::own_stage;
};

/// The stage; see the top of this file.
template <class E, class Context, class X, class Weights, class Target, class Drop = no_dropout>
    requires(!brings_stage<Weights>)
void run_experts(Context& ctx, std::byte* scratch, const expert_input<X>& in, const Weights& weights,
                 typename E::sum_type limit, order sums, const kept_activations<typename E::value_type>& keep,
                 const Target& target, const Drop& drop = {}, const round_into<typename E::value_type>& result = {}) {
    using T = typename E::value_type;
    panels_of<T, E::W, E::gated> panels{nullptr, nullptr, nullptr, weights.up_bias, weights.down_bias, shape_of<E>};
    if constexpr (std::is_same_v<Weights, packed_weights<T>>)
        panels.packed = reinterpret_cast<const T*>(weights.data);
    else
        panels.up = weights.up, panels.down = weights.down;
    if constexpr (std::is_same_v<T, bf16>) {
        if (resolve(sums) == order::dot)
            return run_stage<dot_form, E::act, T, E::bias>(ctx, scratch, shape_of<E>, in, panels, limit, keep, target,
                                                           drop, result);
    }
#if GATEFOLD_AMX
    if constexpr (std::is_same_v<T, bf16>) {
        if (may_use_tiles())
            return run_stage<tile_form<machine_tiles>, E::act, T, E::bias>(ctx, scratch, shape_of<E>, in, panels, limit,
                                                                           keep, target, drop, result);
    }
#endif
    run_stage<form_for<T, order::portable>, E::act, T, E::bias>(ctx, scratch, shape_of<E>, in, panels, limit, keep,
                                                                target, drop, result);
}

template <class E, class Context, class X, class Weights, class Target, class Drop = no_dropout>
    requires(brings_stage<Weights>)
void run_experts(Context& ctx, std::byte* scratch, const expert_input<X>& in, const Weights& weights,
                 typename E::sum_type limit, order sums, const kept_activations<typename E::value_type>& keep,
                 const Target& target, const Drop& drop = {}, const round_into<typename E::value_type>& result = {}) {
    weights.template run<E>(ctx, scratch, in, limit, sums, keep, target, drop, result);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
