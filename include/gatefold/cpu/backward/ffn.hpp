// Backward of one kind of FFN over its rows: the routed experts, the shared expert, or the dense layer.
//
//     dy ── · down ──> da' ──┬── <da', a> + <dy, b2> ──> d weight of the pair
//                            └── · weight, activation backward ──> [dg|du] ── · gate_up ──> dx rows
//     d down = (weight dy)ᵀ a       d gate_up = [dg|du]ᵀ x       biases: sums of the same rows
//
// The form that keeps no expert outputs: `a` is computed again from the pre-activations on the tape.
#pragma once

#include <cstdint>

#include <gatefold/core/workspace.hpp>
#include <gatefold/cpu/experts/dropout.hpp>
#include <gatefold/cpu/rows.hpp>
#include <gatefold/cpu/simd/number.hpp>
#include <gatefold/ops/activation.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Everything that one backward pass reads and writes. Null pointers stand for what the FFN does not have. D is the
/// type in which the gradient of the output comes.
template <class T, class D = T>
struct ffn_backward_call {
    using A = accumulate_t<T>;
    grouping groups;
    const std::int32_t* pairs;  ///< (token, slot) of each row, null: row r is token r
    int slots;
    const A* output_weights;  ///< what each pair's output was multiplied by, null: 1
    const A* input_weights;   ///< what each pair's input was multiplied by, null: 1
    const T* x;
    index_t x_stride;
    const D* dy;
    index_t dy_stride;
    int width, ffn;
    const T *gate_up, *down, *down_bias;
    const T* pre_activations;  ///< [rows, gate_up_rows]
    A limit;
    A *d_gate_up, *d_down, *d_gate_up_bias, *d_down_bias;
    bool accumulate;
    A* d_weights;  ///< [pairs] gradient of input_weights, else of output_weights; null where both are constant
};

/// Workspace of ffn_backward for a number of rows.
template <class T, activation Act>
struct ffn_backward_memory {
    using A = accumulate_t<T>;
    static constexpr int halves = is_gated(Act) ? 2 : 1;
    A *d_activation, *d_pre_activation, *d_x;
    T* activations;

    GATEFOLD_INLINE constexpr ffn_backward_memory(carver& memory, index_t rows, int width, int ffn)
        : d_activation(memory.take<A>(rows * ffn)),
          d_pre_activation(memory.take<A>(rows * halves * ffn)),
          d_x(memory.take<A>(rows * width)),
          activations(memory.take<T>(rows * ffn)) {}
};

/// Row r: the activation again, the gradient of the pair's weight, the gradient of the pre-activations.
template <activation Act, class T, class Drop, class A = accumulate_t<T>>
A activation_row_backward(const T* pre, const A* d_activation, A weight, A limit, int ffn, const Drop& drop, index_t r,
                          T* activations, A* d_pre) {
    constexpr int width = lanes<A>;
    const vec<A> w = broadcast<A>(weight), bound = broadcast<A>(limit);
    for (index_t i = 0; i < ffn; i += width) {
        const index_t left = ffn - i;
        const vec<A> gate = load_first<A>(pre + i, left),
                     d = drop.apply(mul(w, load_first<A>(d_activation + i, left)), r, i, left);
        if constexpr (is_gated(Act)) {
            const vec<A> up = load_first<A>(pre + ffn + i, left);
            store_first(activations + i, drop.apply(activate<Act>(gate, up, bound), r, i, left), left);
            const auto g = activate_backward<Act>(gate, up, d, bound);
            store_first(d_pre + i, g.d_gate, left);
            store_first(d_pre + ffn + i, g.d_up, left);
        } else {
            store_first(activations + i, drop.apply(activate<Act>(gate, bound), r, i, left), left);
            store_first(d_pre + i, activate_backward<Act>(gate, d, bound), left);
        }
    }
    return dot<A>(d_activation, activations, ffn);
}

/// Leaves the gradients of the FFN's parameters in place and of its input rows in memory.d_x.
template <activation Act, class T, class D, class Drop = no_dropout>
void ffn_backward(context<cpu>& ctx, const ffn_backward_call<T, D>& call, const ffn_backward_memory<T, Act>& memory,
                  std::byte* scratch, const Drop& drop = {}) {
    using A = accumulate_t<T>;
    constexpr int halves = is_gated(Act) ? 2 : 1;
    const int ffn = call.ffn, width = call.width, gate_up_rows = halves * ffn;
    const index_t expert_up = index_t{gate_up_rows} * width, expert_down = index_t{width} * ffn;
    const rows_of<D> dy{call.dy, call.dy_stride, call.pairs, call.slots};
    const rows_of<D> weighted_dy{call.dy, call.dy_stride, call.pairs, call.slots, call.output_weights};
    const rows_of<T> x{call.x, call.x_stride, call.pairs, call.slots, call.input_weights};
    const rows_of<T> activations{memory.activations, ffn};
    const rows_of<A> d_pre{memory.d_pre_activation, gate_up_rows};

    product_nn(ctx, scratch, call.groups, dy, weights_of<T>{call.down, ffn, expert_down}, ffn, width,
               matrix<A>{memory.d_activation, ffn});

    const index_t first = call.groups.begin(0), rows = call.groups.end(call.groups.experts - 1) - first;
    const int parts = static_cast<int>(rows < ctx.threads() ? rows : ctx.threads());
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(rows, part, parts);
        int e = 0;
        for (index_t r = first + mine.begin; r < first + mine.end; ++r) {
            while (call.groups.end(e) <= r) ++e;
            const index_t pair = call.pairs ? call.pairs[r] : r;
            A d_weight = activation_row_backward<Act>(
                call.pre_activations + r * gate_up_rows, memory.d_activation + r * ffn,
                call.output_weights ? call.output_weights[pair] : A{1}, call.limit, ffn, drop.of_expert(e, 0), r,
                memory.activations + r * ffn, memory.d_pre_activation + r * gate_up_rows);
            if (call.d_weights && !call.input_weights) {
                if (call.down_bias) d_weight += dot<A>(dy.row(r), call.down_bias + index_t{e} * width, width);
                call.d_weights[pair] = d_weight;
            }
        }
    });

    product_tn(ctx, scratch, call.groups, weighted_dy, activations, width, ffn,
               matrix<A>{call.d_down, ffn, expert_down}, call.accumulate);
    product_tn(ctx, scratch, call.groups, d_pre, x, gate_up_rows, width, matrix<A>{call.d_gate_up, width, expert_up},
               call.accumulate);
    if (call.d_down_bias) column_sums(ctx, call.groups, weighted_dy, width, call.d_down_bias, call.accumulate);
    if (call.d_gate_up_bias) column_sums(ctx, call.groups, d_pre, gate_up_rows, call.d_gate_up_bias, call.accumulate);

    product_nn(ctx, scratch, call.groups, d_pre, weights_of<T>{call.gate_up, width, expert_up}, width, gate_up_rows,
               matrix<A>{memory.d_x, width});
    if (call.d_weights && call.input_weights)
        ctx.parallel(parts, [&](int part) {
            const range mine = part_of(rows, part, parts);
            for (index_t r = first + mine.begin; r < first + mine.end; ++r)
                call.d_weights[call.pairs[r]] =
                    dot<A>(memory.d_x + r * width, call.x + call.pairs[r] / call.slots * call.x_stride, width);
        });
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
