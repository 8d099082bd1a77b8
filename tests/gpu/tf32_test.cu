// Experts on operands rounded to tf32: near the exact products, further from them than float is, the same routing.
#include <gatefold/cuda/tf32.cuh>

#include "device.hpp"

using namespace device;

namespace {

template <class L>
void compare(L, std::initializer_list<int> counts) {
    constexpr int H = L::hidden;
    on_both<L> layer(17);
    auto& [cpu, gpu, w, dw] = layer;
    const auto packed = gf::pack(gpu, dw);
    for (const int n : counts) {
        tokens<float, H> x(cpu, gpu, n), y(cpu, gpu, n);
        x.fill(gpu, 3);
        gf::forward(cpu, w, x.host.view(), y.host.view());
        gf::forward(gpu, gf::tf32, dw, x.on_device.view(), y.on_device.view());
        const auto mine = fetch(gpu, y.on_device);
        const double d = distance(mine.data(), y.host.data(), y.host.size());
        BOOST_TEST(d < 1e-3, n << " tokens: " << d);
        BOOST_TEST(d > 1e-6, n << " tokens: " << d << ", as if nothing had been rounded");
        gf::forward(gpu, gf::tf32, packed, x.on_device.view(), y.on_device.view());
        BOOST_TEST(differences(fetch(gpu, y.on_device).data(), mine.data(), n * H) == 0, "packed, " << n);
        // The last rows on their own.
        const int last = n < 3 ? n : 3;
        const gf::device_tensor<float, gf::dyn, H>& all = x.on_device;
        if (H % 4 == 0) {
            gf::forward(gpu, gf::tf32, dw, gf::device_view<const float, gf::dyn, H>(all.view().slice(n - last, last)),
                        gf::device_view<float, gf::dyn, H>(y.on_device.view().slice(n - last, last)));
            BOOST_TEST(differences(fetch(gpu, y.on_device).data(), mine.data(), n * H) == 0, "split of " << n);
        }
    }
}

using gf::config;

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(tf32)

BOOST_AUTO_TEST_CASE(gated_with_a_shared_expert_of_another_width) {
    compare(gf::layer<config{.hidden = 72, .ffn = 40, .experts = 5, .top_k = 2, .shared = {.ffn = 24, .gate = true}},
                      float>{},
            {1, 40, 300});
}

BOOST_AUTO_TEST_CASE(odd_widths_biases_weights_on_inputs_and_one_for_all_dense) {
    compare(gf::layer<config{.hidden = 37,
                             .ffn = 21,
                             .experts = 6,
                             .top_k = 2,
                             .act = gf::activation::gelu_erf,
                             .bias = true,
                             .router = {.acts_on = gf::weight_at::input},
                             .shared = {.ffn = 21, .act = gf::activation::gelu_erf, .bias = true}},
                      float>{},
            {1, 60});
    compare(gf::layer<config{.hidden = 68, .ffn = 100, .act = gf::activation::clamped_swiglu, .limit = 7, .bias = true},
                      float>{},
            {1, 50});
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
