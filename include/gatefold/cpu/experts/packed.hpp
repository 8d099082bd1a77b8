// Packing a layer's experts on the CPU, and reading them back as what the expert stage takes.
#pragma once

#include <cstring>

#include <gatefold/cpu/experts/experts.hpp>
#include <gatefold/cpu/rows.hpp>
#include <gatefold/moe/packed.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

template <layer_type L>
using routed_expert = expert<L::width, L::ffn, L::c.act, typename L::value_type, L::c.bias>;
// A layer without a shared expert never instantiates its stage; the width only has to be a legal one.
template <layer_type L>
using shared_expert = expert<L::hidden, (L::shared_ffn > 0 ? L::shared_ffn : 1), L::c.shared.act,
                             typename L::value_type, L::c.shared.bias>;

template <layer_type L>
constexpr std::size_t packed_layer_bytes() {
    std::size_t bytes = static_cast<std::size_t>(L::local_experts) * packed_bytes<routed_expert<L>>();
    if constexpr (L::shared_ffn > 0) bytes += packed_bytes<shared_expert<L>>();
    return bytes;
}
/// Whether a layer is packed past the caches: where they would not keep its weights, its packed form and as much again
/// of what the program does meanwhile (bench pack_touched).
template <layer_type L>
inline constexpr bool packed_around = packed_layer_bytes<L>() > kept_in_caches / 4;
template <layer_type L>
std::byte* packed_at(std::byte* matrices, int e) {
    return matrices + static_cast<std::size_t>(e) * packed_bytes<routed_expert<L>>();
}

template <class W>
auto* gate_up_of(const W& w) {
    if constexpr (W::layer_type::is_gated)
        return w.gate_up.data();
    else
        return w.up.data();
}

/// Threads share the experts, the shared one last: each packs neighbours, because two that touch the same huge page for
/// the first time would both clear it (bench pack_fresh).
template <layer_type L, class W>
void pack_layer(context<cpu>& ctx, packed<L>& p, const W& w) {
    constexpr int experts = L::local_experts + (L::shared_ffn > 0 ? 1 : 0);
    const index_t up = index_t{L::gate_up_rows} * L::width, down = index_t{L::width} * L::ffn;
    const int parts = experts < ctx.threads() ? experts : ctx.threads();
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(experts, part, parts);
        for (index_t e = mine.begin; e < mine.end; ++e) {
            std::byte* to = packed_at<L>(p.matrices.data(), static_cast<int>(e));
            if (e < L::local_experts)
                pack_expert<routed_expert<L>, packed_around<L>>(gate_up_of(w) + e * up, w.down.data() + e * down, to);
            else if constexpr (L::shared_ffn > 0)
                pack_expert<shared_expert<L>, packed_around<L>>(w.shared_gate_up.data(), w.shared_down.data(), to);
        }
    });
}

/// Weights whose matrices have a form of their own say here how the stage reads them.
template <class W>
struct own_form {
    static constexpr bool exists = false;
};

/// The routed experts' weights as the stage reads them, whatever holds them.
template <class W, layer_type L = typename W::layer_type>
auto routed_weights(const W& w) {
    using T = typename L::value_type;
    const T *up_bias = nullptr, *down_bias = nullptr;
    if constexpr (L::c.bias) up_bias = w.gate_up_bias.data(), down_bias = w.down_bias.data();
    if constexpr (own_form<W>::exists)
        return own_form<W>::weights(w, 0, up_bias, down_bias);
    else if constexpr (is_packed<W>)
        return packed_weights<T>{w.matrices.data(), up_bias, down_bias};
    else
        return hub_weights<T>{gate_up_of(w), w.down.data(), up_bias, down_bias};
}

/// The same of the shared expert.
template <class W, layer_type L = typename W::layer_type>
auto shared_weights(const W& w) {
    using T = typename L::value_type;
    const T *up_bias = nullptr, *down_bias = nullptr;
    if constexpr (L::c.shared.bias) up_bias = w.shared_gate_up_bias.data(), down_bias = w.shared_down_bias.data();
    if constexpr (own_form<W>::exists)
        return own_form<W>::weights(w, L::local_experts, up_bias, down_bias);
    else if constexpr (is_packed<W>)
        return packed_weights<T>{packed_at<L>(w.matrices.data(), L::local_experts), up_bias, down_bias};
    else
        return hub_weights<T>{w.shared_gate_up.data(), w.shared_down.data(), up_bias, down_bias};
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
