// A packed layer with some content and a call of it. What is counted depends on the content by way of the routing
// alone, so the experts' matrices hold one number and only router and tokens look random.
#pragma once

#include <gatefold/gatefold.hpp>
#include <gatefold/models/published.hpp>

#include "budget.hpp"

namespace budget {

namespace gf = gatefold;

/// A published layer with its widths divided by eight; number of experts, top_k and router stay.
constexpr gf::config eighth(gf::config c) {
    c.hidden /= 8;
    c.ffn /= 8;
    c.shared.ffn /= 8;
    return c;
}

template <class V>
void fill(gf::context<gf::cuda>& gpu, gf::context<gf::cpu>& cpu, V& slot, std::uint64_t seed, double size) {
    using S = typename V::value_type;
    auto host = gf::make_tensor<S, gf::dyn>(cpu, slot.size());
    std::uint64_t state = seed * 2654435761u + 1;
    for (gf::index_t i = 0; i < slot.size(); ++i) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        const double u = static_cast<double>(state >> 11) * 0x1p-52 - 1;
        host.data()[i] = gf::from_accumulate<S>(static_cast<gf::accumulate_t<S>>(u * size));
    }
    gf::copy(gpu, gf::device_view<S, gf::dyn>(slot.data(), {slot.size()}), host.view());
}

/// How many experts the tokens visit.
template <class L, class W>
gf::index_t count_active(gf::context<gf::cuda>& gpu, gf::context<gf::cpu>& cpu, const W& w,
                         gf::device_view<const typename L::value_type, gf::dyn, L::hidden> x) {
    const gf::index_t tokens = x.extent(0);
    auto ids = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(gpu, tokens);
    auto weights = gf::make_tensor<float, gf::dyn, L::slots>(gpu, tokens);
    auto logits = gf::make_tensor<float, gf::dyn, L::choices>(gpu, tokens);
    auto host = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(cpu, tokens);
    gf::route(gpu, w, {.x = x}, {ids.view(), weights.view(), logits.view()});
    gf::copy(gpu, host, ids);
    bool seen[L::choices] = {};
    gf::index_t active = 0;
    for (gf::index_t i = 0; i < host.size(); ++i) {
        active += seen[host.data()[i]] ? 0 : 1;
        seen[host.data()[i]] = true;
    }
    return active;
}

/// How a layer is called unless its file says otherwise.
struct ordered_call {
    template <class W, class X, class Y>
    void operator()(gf::context<gf::cuda>& gpu, const W& w, const X& x, const Y& y) const {
        gf::forward(gpu, w, x, y);
    }
};

template <class L, class Call = ordered_call>
facts run(gf::index_t tokens, bool calls) {
    using S = typename L::value_type;
    gf::context<gf::cpu> cpu(1);
    gf::context<gf::cuda> gpu;
    auto packed = gf::make_packed<L>(gpu);
    gf::detail::check(
        cudaMemsetAsync(packed.matrices.data(), 0x3c, static_cast<std::size_t>(packed.matrices.size()), gpu.stream()),
        "budget");
    std::uint64_t seed = 1;
    const auto each = [&](const char*, auto& slot) { fill(gpu, cpu, slot, seed++, 0.1); };
    gf::for_each_parameter(each, packed);
    gf::for_each_buffer([&](const char*, auto& slot) { fill(gpu, cpu, slot, seed++, 0.01); }, packed);
    auto x = gf::make_tensor<S, gf::dyn, L::hidden>(gpu, tokens),
         y = gf::make_tensor<S, gf::dyn, L::hidden>(gpu, tokens);
    fill(gpu, cpu, x, 99, 1);
    const gf::device_view<const S, gf::dyn, L::hidden> rows = x.view();
    if (calls) {
        Call{}(gpu, packed, rows, y.view());
        gpu.synchronize();
        return {};
    }
    facts f;
    if constexpr (!L::is_dense) f.active_experts = count_active<L>(gpu, cpu, packed, rows);
    // What the stages hand on is written and read once: activations, expert outputs, and the plan.
    const gf::index_t pairs = L::is_dense ? tokens : tokens * L::slots, shared = L::c.shared.ffn;
    gf::index_t handed = pairs * (L::ffn + (L::is_dense ? 0 : L::width));
    if (shared > 0) handed += tokens * (shared + L::hidden);
    const gf::index_t bytes = static_cast<gf::index_t>(sizeof(S));
    f.minimum_bytes = gf::minimum_bytes(L::c, tokens, f.active_experts, static_cast<int>(sizeof(S))) +
                      2 * bytes * handed + 12 * pairs;
    f.useful_flops = pairs * (L::is_gated ? 6 : 4) * L::width * L::ffn +
                     tokens * (gf::is_gated(L::c.shared.act) ? 6 : 4) * L::hidden * shared;
    return f;
}

}  // namespace budget
