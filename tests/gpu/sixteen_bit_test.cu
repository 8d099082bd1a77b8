// What layers of 16-bit floats can be made of besides plain experts: near the CPU wing, and the same for every split.
#include "device.hpp"

using namespace device;

namespace {

template <class L>
void compare(L, std::initializer_list<int> counts, double tolerance, gf::options<L> o = {}) {
    using S = typename L::value_type;
    constexpr int H = L::hidden;
    on_both<L> layer(21);
    auto& [cpu, gpu, w, dw] = layer;
    const auto packed = gf::pack(gpu, dw);
    for (const int n : counts) {
        tokens<S, H> x(cpu, gpu, n), y(cpu, gpu, n);
        x.fill(gpu, 9);
        gf::forward(cpu, w, x.host.view(), y.host.view(), o);
        gf::forward(gpu, dw, x.on_device.view(), y.on_device.view(), o);
        const auto mine = fetch(gpu, y.on_device);
        const double d = distance(mine.data(), y.host.data(), y.host.size());
        BOOST_TEST(d < tolerance, n << " tokens: " << d);
        gf::forward(gpu, packed, x.on_device.view(), y.on_device.view(), o);
        BOOST_TEST(differences(fetch(gpu, y.on_device).data(), mine.data(), n * H) == 0, "packed, " << n);
    }
}

using gf::config;

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(sixteen_bit)

BOOST_AUTO_TEST_CASE(latent_widths) {
    compare(gf::layer<config{.hidden = 64, .ffn = 40, .experts = 5, .top_k = 2, .latent = 24}, gf::bf16>{},
            {1, 40, 330}, 1e-2);
    compare(gf::layer<config{.hidden = 37,
                             .ffn = 24,
                             .experts = 5,
                             .top_k = 2,
                             .shared = {.ffn = 21, .gate = true},
                             .latent = 19,
                             .latent_norm = true},
                      gf::f16>{},
            {1, 40}, 2e-3);
}

BOOST_AUTO_TEST_CASE(free_experts_capacity_and_tokens_times_k) {
    compare(gf::layer<config{.hidden = 48,
                             .ffn = 40,
                             .experts = 5,
                             .top_k = 3,
                             .capacity = {.rule = gf::capacity_rule::megatron, .factor = 0.8f},
                             .free = {.constant = 2, .copy = 1}},
                      gf::bf16>{},
            {1, 40, 400}, 1e-2);
    compare(gf::layer<config{.hidden = 37, .ffn = 24, .experts = 5, .top_k = 2, .router = {.input_times_k = true}},
                      gf::f16>{},
            {1, 40}, 2e-3);
}

BOOST_AUTO_TEST_CASE(noise_that_experts_see) {
    using L = gf::layer<config{.hidden = 40,
                               .ffn = 24,
                               .experts = 5,
                               .top_k = 2,
                               .router = {.noise = 0.1f, .noise_on = gf::input_noise::shared_jitter}},
                        gf::bf16>;
    gf::options<L> o;
    o.training = true;
    compare(L{}, {1, 40}, 1e-2, o);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
