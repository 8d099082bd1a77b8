// Routing on both backends from the same tokens: logits, ids, weights and counts to the bit.
#pragma once

#include "device.hpp"

namespace device {

struct routing_case {
    bool hostile = false;  ///< NaN, infinities and ties among the logits, by way of the tokens
    bool training = false;
};

/// Routes on both sides.
template <class L>
void compare_routing(std::initializer_list<int> counts, routing_case what = {}) {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    constexpr int H = L::hidden;
    on_both<L> layer(3);
    auto& [cpu, gpu, w, dw] = layer;
    for (const int n : counts) {
        tokens<T, H> x(cpu, gpu, n);
        x.fill(gpu, 5);
        if (what.hostile) {
            for (int t = 0; t < n; ++t) {
                const float odd[] = {0, INFINITY, -INFINITY, NAN, 3e38f};
                if (t % 3 == 0) x.host(t, t % H) = stored<T>(static_cast<double>(odd[t / 3 % 5]));
                for (int h = 0; t % 7 == 1 && h < H; ++h) x.host(t, h) = T(0);  // all logits tie
            }
            gf::copy(gpu, x.on_device, x.host);
        }
        auto ids = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(cpu, n);
        auto weights = gf::make_tensor<A, gf::dyn, L::slots>(cpu, n);
        auto logits = gf::make_tensor<A, gf::dyn, L::choices>(cpu, n);
        auto d_ids = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(gpu, n);
        auto d_weights = gf::make_tensor<A, gf::dyn, L::slots>(gpu, n);
        auto d_logits = gf::make_tensor<A, gf::dyn, L::choices>(gpu, n);
        gf::options<L> o;
        o.training = what.training;
        o.step = 3;
        o.layer = 2;
        o.seed = 11;
        cpu.clear_report();
        gpu.clear_report();
        gf::batch<L> in{.x = x.host.view(), .first_token = 1000};
        gf::batch<L, gf::cuda> d_in{.x = x.on_device.view(), .first_token = 1000};
        tokens<A, L::choices> previous(cpu, gpu, n);
        previous.fill(gpu, 77);
        if (L::c.router.transform == gf::logit_transform::residual && n > 1) {
            in.previous_logits = previous.host.view();
            d_in.previous_logits = previous.on_device.view();
        }
        gf::route(cpu, w, in, {ids.view(), weights.view(), logits.view()}, o);
        gf::route(gpu, dw, d_in, {d_ids.view(), d_weights.view(), d_logits.view()}, o);
        const auto same = [&](const char* what, const auto& mine, const auto& theirs) {
            const int d = differences(fetch(gpu, mine).data(), theirs.data(), theirs.size());
            BOOST_TEST(d == 0, what << ": " << d << " of " << theirs.size() << " differ, " << n << " tokens");
        };
        if (!same_bits_as_cpu) continue;
        same("logits", d_logits, logits);
        same("ids", d_ids, ids);
        same("weights", d_weights, weights);
        BOOST_TEST((gpu.report() == cpu.report()));
    }
}

}  // namespace device
