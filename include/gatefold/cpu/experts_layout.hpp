// Where an expert's numbers stand when kernels read them, and the copy that brings them there.
//
//     hub layout: gate_up [2F, H] (or up [F, H]), down [H, F] ── pack_expert ──> panels of two streams [step][W]
//
// A panel is what one kernel call multiplies: the gate and the up rows of the same W features (2 W features where there
// is no gate), or 2 W outputs of the down projection. Streams are an odd number of cache lines long, so that streams
// read side by side fall into different sets.
#pragma once

#include <cstddef>

#include <gatefold/config.hpp>
#include <gatefold/core/order.hpp>
#include <gatefold/cpu/gemm.hpp>
#include <gatefold/cpu/pack.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// The kernel form for a storage type and a (resolved) order.
template <class T, order Sums>
struct form_choice {
    using type = chain<accumulate_t<T>, T>;
};
template <>
struct form_choice<bf16, order::portable> {
    using type = portable_form;
};
template <>
struct form_choice<bf16, order::dot> {
    using type = dot_form;
};
template <class T, order Sums>
using form_for = typename form_choice<T, Sums>::type;

/// One expert as a type: input and output width H, inner width F, activation, storage type, whether it has biases.
template <int H, int F, activation Act, class T, bool Bias = false>
struct expert {
    using value_type = T;
    using sum_type = accumulate_t<T>;
    static constexpr int width = H, ffn = F;
    static constexpr activation act = Act;
    static constexpr bool gated = is_gated(Act), bias = Bias;
    static constexpr int up_rows = gated ? 2 * F : F;

    static constexpr int W = lanes<sum_type>;
    static constexpr int step = form_for<T, order::portable>::step, padding = form_for<T, order::portable>::padding;
    /// Features that one panel of the first projection yields.
    static constexpr int panel_features = gated ? W : 2 * W;
    static constexpr int up_panels = ceil_div(F, panel_features), down_panels = ceil_div(H, 2 * W);
    static constexpr index_t up_steps = round_up(H, padding) / step, down_steps = round_up(F, padding) / step;

    /// Elements from one stream to the next.
    static constexpr index_t stream_elements(index_t steps) {
        constexpr index_t line = 64 / static_cast<index_t>(sizeof(T));
        return (ceil_div(steps * step * W, line) | 1) * line;
    }
    static constexpr index_t up_stream = stream_elements(up_steps), down_stream = stream_elements(down_steps);
    static constexpr index_t up_elements = 2 * up_stream * up_panels;
    static constexpr index_t packed_elements = up_elements + 2 * down_stream * down_panels;
};

/// Bytes of one packed expert, a multiple of 64.
template <class E>
constexpr std::size_t packed_bytes() {
    return static_cast<std::size_t>(E::packed_elements) * sizeof(typename E::value_type);
}

/// Parameters in the hub's layout, expert after expert; biases may be null where the expert has none.
template <class T>
struct hub_weights {
    const T *up, *down, *up_bias = nullptr, *down_bias = nullptr;
};

/// Packed parameters, packed_bytes<E>() per expert, aligned to 64; biases stay as they are.
template <class T>
struct packed_weights {
    const std::byte* data;
    const T *up_bias = nullptr, *down_bias = nullptr;
};

/// Steps [s0, s0 + steps) of W rows of a matrix as a stream; rows that do not exist (row(i) null) are zeros.
template <class E, class Row>
GATEFOLD_INLINE void pack_stream(typename E::value_type* to, index_t s0, index_t steps, index_t columns, Row row) {
    using T = typename E::value_type;
    using sum = typename E::sum_type;
    constexpr int W = E::W;
    const T* rows[std::size_t{W}];
    bool all = true;
    for (int i = 0; i < W; ++i) all = (rows[i] = row(i)) != nullptr && all;
    const index_t k0 = s0 * E::step;
    constexpr index_t block = W;
    for (index_t s = 0; s < steps; s += block) {
        const index_t n = steps - s < block ? steps - s : block;
        vec<sum> x[std::size_t{W}];
        GATEFOLD_UNROLL
        for (int i = 0; i < W; ++i) {
            const index_t k = k0 + s * E::step, left = columns - k;
            if constexpr (E::step == 2)
                x[i] = rows[i] ? pair_reader<T>{rows[i] + k, left, nullptr}(0) : zeros<sum>();
            else
                x[i] = rows[i] ? load_first<sum>(rows[i] + k, left) : zeros<sum>();
        }
        transpose(x);
        if (n == block) {
            GATEFOLD_UNROLL
            for (int j = 0; j < W; ++j) store_stream<T>(to + (s + j) * W * E::step, x[j]);
        } else {
            for (index_t j = 0; j < n; ++j) store_stream<T>(to + (s + j) * W * E::step, x[j]);
        }
    }
}

/// Row i of a stream of the first projection of an expert whose matrix begins at `up`, or null.
template <class E>
GATEFOLD_INLINE const typename E::value_type* up_row(const typename E::value_type* up, index_t panel, int half, int i) {
    if constexpr (E::gated) {
        const index_t feature = panel * E::W + i;
        return feature < E::ffn ? up + (half * E::ffn + feature) * E::width : nullptr;
    } else {
        const index_t feature = (2 * panel + half) * E::W + i;
        return feature < E::ffn ? up + feature * E::width : nullptr;
    }
}
template <class E>
GATEFOLD_INLINE const typename E::value_type* down_row(const typename E::value_type* down, index_t panel, int half,
                                                       int i) {
    const index_t output = (2 * panel + half) * E::W + i;
    return output < E::width ? down + output * E::ffn : nullptr;
}

/// Packs one expert: `up` [up_rows, H] and `down` [H, F] to packed_bytes<E>() bytes at `to`.
template <class E>
void pack_expert(const typename E::value_type* up, const typename E::value_type* down, std::byte* to) {
    using T = typename E::value_type;
    T* out = reinterpret_cast<T*>(to);
    const auto finish = [&](T* stream, index_t used, index_t length) {
        for (index_t i = used; i < length; ++i) stream[i] = T{};
    };
    for (index_t p = 0; p < E::up_panels; ++p)
        for (int half = 0; half < 2; ++half, out += E::up_stream) {
            pack_stream<E>(out, 0, E::up_steps, E::width, [&](int i) { return up_row<E>(up, p, half, i); });
            finish(out, E::up_steps * E::step * E::W, E::up_stream);
        }
    for (index_t p = 0; p < E::down_panels; ++p)
        for (int half = 0; half < 2; ++half, out += E::down_stream) {
            pack_stream<E>(out, 0, E::down_steps, E::ffn, [&](int i) { return down_row<E>(down, p, half, i); });
            finish(out, E::down_steps * E::step * E::W, E::down_stream);
        }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
