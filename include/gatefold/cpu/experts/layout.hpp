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
#include <gatefold/cpu/gemm/gemm.hpp>
#include <gatefold/cpu/gemm/pack.hpp>

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

/// Where the rows of an expert's panels stand in hub layout: half 0 or 1 of panel p holds the W rows from
/// half · `apart` + p · `together` on, of which those below `end` of that half exist.
template <class T>
struct panel_rows {
    const T* matrix;
    index_t columns, together, apart, end;

    /// The first row of a half; the rows of a half are one contiguous block.
    template <int W>
    GATEFOLD_INLINE const T* row(index_t panel, int half) const {
        return matrix + (panel * together + half * (apart == 0 ? W : apart)) * columns;
    }

    /// How many rows of a half exist: W or more where it is whole, 0 or less where none do.
    template <int W>
    GATEFOLD_INLINE index_t there(index_t panel, int half) const {
        return end - panel * together - half * (apart == 0 ? W : 0);
    }

    /// Steps [s0, s0 + steps) of one stream.
    template <int Step, int W, bool Around = false>
    GATEFOLD_INLINE void pack(T* to, index_t panel, int half, index_t s0, index_t steps) const {
        const T* rows[std::size_t{W}];
        const T* begin = row<W>(panel, half) + s0 * Step;
        const index_t count = there<W>(panel, half);
        for (int i = 0; i < W; ++i) rows[i] = i < count ? begin + i * columns : nullptr;
        interleave_stream<T, Step, Around>(to, rows, steps, columns - s0 * Step);
    }
};

/// One projection of one expert as panels, padded streams included.
template <class T, int Step, int W, bool Around>
void pack_panels(T* to, const panel_rows<T>& rows, index_t panels, index_t steps, index_t stream) {
    for (index_t p = 0; p < panels; ++p)
        for (int half = 0; half < 2; ++half, to += stream) {
            rows.template pack<Step, W, Around>(to, p, half, 0, steps);
            for (index_t i = steps * Step * W; i < stream; ++i) to[i] = T{};
        }
}

/// Packs one expert: `up` [up_rows, H] and `down` [H, F] to packed_bytes<E>() bytes at `to`, aligned to 64.
///
/// Around stores past the caches: a third less traffic (bench pack_touched).
template <class E, bool Around = false>
void pack_expert(const typename E::value_type* up, const typename E::value_type* down, std::byte* to) {
    using T = typename E::value_type;
    T* out = reinterpret_cast<T*>(to);
    const panel_rows<T> up_rows =
        E::gated ? panel_rows<T>{up, E::width, E::W, E::ffn, E::ffn} : panel_rows<T>{up, E::width, 2 * E::W, 0, E::ffn};
    const panel_rows<T> down_rows{down, E::ffn, 2 * E::W, 0, E::width};
    pack_panels<T, E::step, E::W, Around>(out, up_rows, E::up_panels, E::up_steps, E::up_stream);
    pack_panels<T, E::step, E::W, Around>(out + E::up_elements, down_rows, E::down_panels, E::down_steps,
                                          E::down_stream);
    if constexpr (Around) finish_stores_around();
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
