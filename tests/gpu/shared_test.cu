// ctest: timeout=900
// A shared expert of the routed width, whose products ride in those of the routed experts: the bits of the CPU wing in
// float, the oracle's numbers in 16 bits, and of a row the same bits whatever the call.
#include <algorithm>

#include "examine.hpp"

using namespace device;
using gf::config;

namespace {

/// Outputs and pre-activations have the bits of the CPU wing.
template <class L>
void same_as_cpu(L, std::initializer_list<int> counts, bool training = false) {
    using T = typename L::value_type;
    constexpr int H = L::hidden;
    static_assert(gf::detail::on_cuda::shared_rides<L>);
    on_both<L> layer(7);
    auto& [cpu, gpu, w, dw] = layer;
    const auto packed = gf::pack(gpu, dw);
    gf::options<L> o;
    o.training = training;
    o.accumulate = training;
    if (L::c.limit > 0) {
        o.limit = 0.9f;
        o.shared_limit = 0.6f;
    }
    for (const int n : counts) {
        tokens<T, H> x(cpu, gpu, n), y(cpu, gpu, n);
        x.fill(gpu, 9);
        y.fill(gpu, 13);
        gf::tape<L> tape(cpu, n);
        gf::tape<L, gf::cuda> d_tape(gpu, n);
        gf::forward(cpu, w, gf::batch<L>{.x = x.host.view()}, y.host.view(), tape, o);
        gf::forward(gpu, dw, gf::batch<L, gf::cuda>{.x = x.on_device.view()}, y.on_device.view(), d_tape, o);
        const auto mine = fetch(gpu, y.on_device);
        if (!same_bits_as_cpu) {
            BOOST_TEST(distance(mine.data(), y.host.data(), y.host.size()) < 1e-5);
            continue;
        }
        BOOST_TEST(differences(mine.data(), y.host.data(), y.host.size()) == 0, n << " tokens");
        const gf::index_t rows = tape.plan().offsets[L::experts];
        BOOST_TEST(differences(fetch(gpu, d_tape.gate_up()).data(), tape.gate_up().data(), rows * L::gate_up_rows) ==
                   0);
        BOOST_TEST(differences(fetch(gpu, d_tape.shared_gate_up()).data(), tape.shared_gate_up().data(),
                               n * L::shared_gate_up_rows) == 0);
        if (o.accumulate) continue;
        gf::forward(gpu, packed, x.on_device.view(), y.on_device.view(), o);
        BOOST_TEST(differences(fetch(gpu, y.on_device).data(), y.host.data(), y.host.size()) == 0, "packed, " << n);
    }
}

/// Rows have the bits of the largest call in calls of all sizes.
template <class L>
void same_in_every_call(L, gf::index_t all, std::initializer_list<gf::index_t> sizes) {
    using S = typename L::value_type;
    constexpr int H = L::hidden;
    static_assert(gf::detail::on_cuda::shared_rides<L>);
    on_both<L> layer(5);
    auto& [cpu, gpu, w, dw] = layer;
    const auto packed = gf::pack(gpu, dw);
    tokens<S, H> x(cpu, gpu, all), y(cpu, gpu, all);
    x.fill(gpu, 3);
    const gf::device_tensor<S, gf::dyn, H>& in = x.on_device;
    gf::forward(gpu, dw, in.view(), y.on_device.view());
    const auto together = fetch(gpu, y.on_device);
    gf::forward(cpu, w, x.host.view(), y.host.view());
    const double d = distance(together.data(), y.host.data(), y.host.size());
    BOOST_TEST(d < (std::is_same_v<S, gf::bf16> ? 1e-2 : 2e-3), all << " tokens: " << d);
    for (const gf::index_t size : sizes) {
        const gf::index_t some = (std::min)(all, 8 * size);
        for (gf::index_t first = 0; first < some; first += size) {
            const gf::index_t n = (std::min)(size, some - first);
            gf::forward(gpu, packed, gf::device_view<const S, gf::dyn, H>(in.view().slice(first, n)),
                        gf::device_view<S, gf::dyn, H>(y.on_device.view().slice(first, n)));
        }
        BOOST_TEST(differences(fetch(gpu, y.on_device).data(), together.data(), some * H) == 0,
                   all << " rows in calls of " << size);
    }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(shared)

BOOST_AUTO_TEST_CASE(float_layers_have_the_bits_of_the_cpu) {
    same_as_cpu(
        gf::layer<
            config{.hidden = 45,
                   .ffn = 37,
                   .experts = 7,
                   .top_k = 3,
                   .act = gf::activation::clamped_swiglu,
                   .limit = 1,
                   .bias = true,
                   .router = {.renorm = gf::renormalise::sum, .scale = 1.5f},
                   .shared = {.ffn = 37, .gate = true, .act = gf::activation::clamped_swiglu, .limit = 1, .bias = true},
                   .free = {.copy = 1, .zero = 1}},
            float>{},
        {1, 33, 400});
}

BOOST_AUTO_TEST_CASE(weights_on_inputs_tokens_times_k_noise_and_dropped_pairs) {
    same_as_cpu(gf::layer<config{.hidden = 20,
                                 .ffn = 12,
                                 .experts = 4,
                                 .top_k = 2,
                                 .act = gf::activation::gelu_erf,
                                 .router = {.acts_on = gf::weight_at::input,
                                            .input_times_k = true,
                                            .noise = 0.1f,
                                            .noise_on = gf::input_noise::shared_jitter},
                                 .capacity = {.rule = gf::capacity_rule::megatron, .factor = 0.7f},
                                 .shared = {.ffn = 12, .act = gf::activation::gelu_erf}},
                          double>{},
                {1, 50}, true);
}

// Per expert 275 rows, 33, 2: tiles of 128, of 64, of 8; the shared expert has rows of several tiles in each.
BOOST_AUTO_TEST_CASE(sixteen_bits_in_calls_of_every_size) {
    same_in_every_call(
        gf::layer<config{.hidden = 72, .ffn = 40, .experts = 8, .top_k = 2, .shared = {.ffn = 40, .gate = true}},
                  gf::bf16>{},
        1100, {130, 7, 1});
}

BOOST_AUTO_TEST_CASE(sixteen_bits_of_odd_widths_with_biases) {
    examination<gf::layer<config{.hidden = 37,
                                 .ffn = 21,
                                 .experts = 5,
                                 .top_k = 2,
                                 .act = gf::activation::gelu_erf,
                                 .bias = true,
                                 .shared = {.ffn = 21, .act = gf::activation::gelu_erf, .bias = true}},
                          gf::bf16>>(8)
        .run({1, 67});
}

BOOST_AUTO_TEST_CASE(sixteen_bits_with_weights_on_inputs) {
    same_in_every_call(gf::layer<config{.hidden = 40,
                                        .ffn = 24,
                                        .experts = 4,
                                        .router = {.from = gf::score::sigmoid, .acts_on = gf::weight_at::input},
                                        .shared = {.ffn = 24}},
                                 gf::f16>{},
                       330, {60, 5});
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
