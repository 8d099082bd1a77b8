// One row through one packed expert, without tiles, plan or scratch: what a call costs whose weights are in a cache.
//
//     x[H] ──× panels, 4 streams at a time ──> registers ── bias, activation ──> row[F] ──× down streams ──> z[H]
//
// A packed row is the row itself, so the first projection reads x as it lies. Where a result fits into a few registers
// (H up to 8 of them), each group of features is multiplied on as soon as it is there: z has as few chains as it has
// registers, and waits for them while the next group is computed. The same sums as run_experts().
#pragma once

#include <cstddef>
#include <type_traits>

#include <gatefold/cpu/experts/layout.hpp>
#include <gatefold/cpu/simd/number.hpp>
#include <gatefold/ops/activation.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Whether a form's kernel may be inlined: not where it has to run in a mode that flushes subnormals.
template <class Form>
inline constexpr bool is_inlined = Form::block == 1 && !Form::flushes;

/// Adds a row of `steps` steps times NV streams to sums; in a form that restarts or flushes, from zero sums only.
template <class Form, int NV>
GATEFOLD_INLINE void add_row(vec<typename Form::sum_type>* sums, index_t steps, const typename Form::row_type* a,
                             const typename Form::stream_type* b, index_t stream) {
    using sum = typename Form::sum_type;
    constexpr int width = lanes<sum>;
    if constexpr (is_inlined<Form>) {
        GATEFOLD_PRAGMA(GCC unroll 8)
        for (index_t k = 0; k < steps; ++k, b += width * Form::step) {
            vec<sum> x = Form::row(a + k);
            keep_apart(x.raw);
            GATEFOLD_UNROLL
            for (int j = 0; j < NV; ++j) sums[j] = Form::multiply_add(x, Form::weights(b + j * stream), sums[j]);
        }
    } else {
        alignas(64) sum c[std::size_t{NV}][std::size_t{width}];
        const lookahead ahead{0, reinterpret_cast<const char*>(b), 0, 0};
        const flush_subnormals mode;
        multiply<Form, 1, NV>(steps, a, b, stream, c[0], NV * width, true, ahead);
        for (int j = 0; j < NV; ++j) sums[j] = load<sum>(c[j]);
    }
}

/// A row as the kernels of a form read it, padded to whole steps. Numbers are rounded to T as they are kept.
template <class Form, class T, int Columns>
struct kept_row {
    using sum = typename Form::sum_type;
    static constexpr bool pairs = Form::step == 2 && Form::block == 1;  ///< two bf16 in an element
    static constexpr int width = lanes<sum>, padded = round_up(Columns, Form::padding);
    using number_type = std::conditional_t<pairs, T, sum>;
    alignas(64) number_type numbers[std::size_t{round_up(padded, width)}];

    GATEFOLD_INLINE kept_row() {
        for (int i = Columns; i < padded; ++i) numbers[i] = number_type{};
    }
    GATEFOLD_INLINE void put(int f, vec<sum> values) {
        if constexpr (!std::is_same_v<number_type, T>) {
            alignas(64) T rounded[std::size_t{width}];
            store(rounded, values);
            values = load<sum>(rounded);
        }
        if constexpr (Columns % width == 0)
            store(numbers + f, values);
        else
            store_first(numbers + f, values, Columns - f);
    }
    GATEFOLD_INLINE const typename Form::row_type* data() const {
        return reinterpret_cast<const typename Form::row_type*>(numbers);
    }

    /// The row `x` itself where kernels can read it as it lies, otherwise a copy in `room`.
    GATEFOLD_INLINE static const typename Form::row_type* of(const T* x, kept_row& room) {
        if constexpr (std::is_same_v<number_type, T> && padded == Columns) {
            return reinterpret_cast<const typename Form::row_type*>(x);
        } else {
            constexpr int whole = Columns / width * width;
            for (int f = 0; f < whole; f += width) room.put(f, load<sum>(x + f));
            if constexpr (whole < Columns) room.put(whole, load_first<sum>(x + whole, Columns - whole));
            return room.data();
        }
    }
};

/// One expert's packed matrices and biases.
template <class E, class T = typename E::value_type>
struct one_expert {
    const T *packed, *up_bias, *down_bias;

    GATEFOLD_INLINE one_expert(const packed_weights<T>& all, index_t e)
        : packed(reinterpret_cast<const T*>(all.data) + e * E::packed_elements),
          up_bias(E::bias ? all.up_bias + e * E::up_rows : nullptr),
          down_bias(E::bias ? all.down_bias + e * E::width : nullptr) {}
};

/// One row through one expert: deliver(h, z) gets the outputs from h on, a register at a time.
template <class E, class Form>
struct one_row {
    using T = typename E::value_type;
    using sum = typename Form::sum_type;
    static constexpr int W = lanes<sum>, features_of_two = E::gated ? W : 2 * W;
    /// Registers of features in the first projection, gate and up rows apart; of outputs in the second.
    static constexpr int up_vectors = E::gated ? 2 * E::up_panels : ceil_div(E::ffn, W),
                         down_vectors = ceil_div(E::width, W);
    static constexpr bool at_once = is_inlined<Form> && down_vectors <= vector_registers / 4;
    /// Streams of a kernel that has those of a whole panel only.
    static constexpr int least = is_inlined<Form> ? 1 : 2;
    static constexpr index_t step_elements = index_t{W} * Form::step;

    using input_row = kept_row<Form, T, E::width>;
    using inner_row = kept_row<Form, T, E::ffn>;

    const one_expert<E>& weights;
    const typename Form::row_type* x;
    vec<sum> limit;

    /// Activations of NV registers of the first projection from register `first` on.
    template <int NV>
    GATEFOLD_INLINE void activate_registers(int first, inner_row& row) const {
        vec<sum> sums[std::size_t{NV}];
        GATEFOLD_UNROLL
        for (int j = 0; j < NV; ++j) sums[j] = zeros<sum>();
        add_row<Form, NV>(sums, E::up_steps, x, weights.packed + first * E::up_stream, E::up_stream);
        GATEFOLD_UNROLL
        for (int j = 0; j < NV; j += E::gated ? 2 : 1) {
            const int f = (first + j) / 2 * features_of_two + (E::gated ? 0 : (first + j) % 2 * W), left = E::ffn - f;
            vec<sum> value = sums[j], upper = sums[E::gated ? j + 1 : j];
            if constexpr (E::bias) {
                value = add(value, load_first<sum>(weights.up_bias + f, left));
                if constexpr (E::gated) upper = add(upper, load_first<sum>(weights.up_bias + E::ffn + f, left));
            }
            if constexpr (E::gated)
                row.put(f, activate<E::act>(value, upper, limit));
            else if (left > 0)
                row.put(f, activate<E::act>(value, limit));
        }
    }

    /// Registers [first, down_vectors) of the outputs, NV at a time.
    template <int NV, class Deliver>
    GATEFOLD_INLINE int deliver_registers(int first, const inner_row& row, const Deliver& deliver) const {
        for (; first + NV <= round_up(down_vectors, least); first += NV) {
            vec<sum> z[std::size_t{NV}];
            for (int j = 0; j < NV; ++j) z[j] = zeros<sum>();
            add_row<Form, NV>(z, E::down_steps, row.data(), down(first), E::down_stream);
            for (int j = 0; j < NV; ++j)
                if (first + j < down_vectors) deliver_one(first + j, z[j], deliver);
        }
        return first;
    }

    template <class Deliver>
    GATEFOLD_INLINE void operator()(const Deliver& deliver) const {
        inner_row row;
        constexpr int padded_up = round_up(up_vectors, least);
        if constexpr (at_once) {
            vec<sum> z[std::size_t{down_vectors}];
            for (int j = 0; j < down_vectors; ++j) z[j] = zeros<sum>();
            index_t done = 0;
            const auto multiply_on = [&](int vectors) {
                const index_t features = E::gated ? vectors / 2 * W : vectors * W, all = E::down_steps;
                const index_t steps = features / Form::step < all ? features / Form::step : all;
                add_row<Form, down_vectors>(z, steps - done, row.data() + done, down(0) + done * step_elements,
                                            E::down_stream);
                done = steps;
            };
            int first = 0;
            for (; first + 4 <= padded_up; first += 4) {
                activate_registers<4>(first, row);
                multiply_on(first + 4);
            }
            if constexpr (padded_up % 4 >= 2) {
                activate_registers<2>(first, row);
                first += 2;
            }
            if constexpr (padded_up % 2 == 1) activate_registers<1>(first, row);
            if (done < E::down_steps) multiply_on(up_vectors + 2 * W);
            for (int j = 0; j < down_vectors; ++j) deliver_one(j, z[j], deliver);
        } else {
            int first = 0;
            for (; first + 4 <= padded_up; first += 4) activate_registers<4>(first, row);
            if constexpr (padded_up % 4 >= 2) {
                activate_registers<2>(first, row);
                first += 2;
            }
            if constexpr (padded_up % 2 == 1) activate_registers<1>(first, row);
            first = deliver_registers<4>(0, row, deliver);
            first = deliver_registers<2>(first, row, deliver);
            if constexpr (is_inlined<Form>) deliver_registers<1>(first, row, deliver);
        }
    }

private:
    GATEFOLD_INLINE const T* down(int first) const { return weights.packed + E::up_elements + first * E::down_stream; }
    template <class Deliver>
    GATEFOLD_INLINE void deliver_one(int j, vec<sum> z, const Deliver& deliver) const {
        if constexpr (E::bias) z = add(z, load_first<sum>(weights.down_bias + j * W, E::width - j * W));
        deliver(j, z);
    }
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
