// Whole layers of floats on CUDA: the bits of the CPU wing, whatever the batch and its split.
#include "device.hpp"

namespace gf = gatefold;
using namespace device;

namespace {

template <class L>
void compare(std::initializer_list<int> counts, bool accumulate = false, bool training = false) {
    using T = typename L::value_type;
    constexpr int H = L::hidden;
    on_both<L> layer(7);
    auto& [cpu, gpu, w, dw] = layer;
    gf::options<L> o;
    o.accumulate = accumulate;
    o.training = training;
    o.seed = 5;
    for (const int n : counts) {
        tokens<T, H> x(cpu, gpu, n), y(cpu, gpu, n);
        x.fill(gpu, 9);
        y.fill(gpu, 13);
        gf::tape<L> tape(cpu, n);
        gf::tape<L, gf::cuda> d_tape(gpu, n);
        gf::forward(cpu, w, gf::batch<L>{.x = x.host.view()}, y.host.view(), tape, o);
        gf::forward(gpu, dw, gf::batch<L, gf::cuda>{.x = x.on_device.view()}, y.on_device.view(), d_tape, o);
        if (!same_bits_as_cpu) {
            BOOST_TEST(distance(fetch(gpu, y.on_device).data(), y.host.data(), y.host.size()) < 1e-5);
            continue;
        }
        BOOST_TEST(differences(fetch(gpu, y.on_device).data(), y.host.data(), y.host.size()) == 0, n << " tokens");
        const gf::index_t rows = L::is_dense ? n : tape.plan().offsets[L::experts];
        BOOST_TEST(differences(fetch(gpu, d_tape.gate_up()).data(), tape.gate_up().data(), rows * L::gate_up_rows) ==
                   0);
        if constexpr (L::c.router.transform == gf::logit_transform::noisy_top_k)
            BOOST_TEST(differences(fetch(gpu, d_tape.deviations()).data(), tape.deviations().data(), n * L::choices) ==
                       0);
        if constexpr (!L::is_dense) {
            BOOST_TEST(differences(fetch(gpu, d_tape.routing().ids).data(), tape.routing().ids.data(), n * L::slots) ==
                       0);
            BOOST_TEST(differences(fetch(gpu, d_tape.plan().place).data(), tape.plan().place.data(), n * L::slots) ==
                       0);
        }
    }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(layer)

BOOST_AUTO_TEST_CASE(float_layers_have_the_bits_of_the_cpu) {
    compare<gf::layer<gf::config{.hidden = 48, .ffn = 40, .experts = 6, .top_k = 2}, float>>({1, 33, 700});
    compare<gf::layer<gf::config{.hidden = 20, .ffn = 24, .act = gf::activation::clamped_swiglu, .limit = 1}, double>>(
        {1, 50});
}

BOOST_AUTO_TEST_CASE(weights_on_inputs_shared_expert_free_experts) {
    compare<
        gf::layer<gf::config{.hidden = 45,
                             .ffn = 37,
                             .experts = 7,
                             .top_k = 3,
                             .act = gf::activation::gelu_erf,
                             .bias = true,
                             .router = {.renorm = gf::renormalise::sum, .scale = 1.5f, .scaled = gf::scale_at::output},
                             .shared = {.ffn = 21, .gate = true},
                             .free = {.copy = 1, .zero = 1}},
                  float>>({1, 50}, true);
}

BOOST_AUTO_TEST_CASE(experts_that_return_a_learned_constant) {
    compare<gf::layer<gf::config{.hidden = 44,
                                 .ffn = 16,
                                 .experts = 3,
                                 .top_k = 4,
                                 .shared = {.ffn = 8, .gate = true},
                                 .free = {.constant = 3, .copy = 1, .zero = 1}},
                      float>>({1, 50});
    compare<gf::layer<gf::config{.hidden = 1030, .ffn = 8, .experts = 2, .top_k = 2, .free = {.constant = 2}}, double>>(
        {3});
}

BOOST_AUTO_TEST_CASE(experts_on_a_latent_width) {
    compare<gf::layer<gf::config{.hidden = 40, .ffn = 24, .experts = 5, .top_k = 2, .latent = 12}, float>>({1, 50});
    compare<gf::layer<gf::config{.hidden = 37,
                                 .ffn = 24,
                                 .experts = 5,
                                 .top_k = 2,
                                 .router = {.scale = 1.5f, .scaled = gf::scale_at::output},
                                 .shared = {.ffn = 21, .gate = true},
                                 .latent = 19,
                                 .latent_norm = true},
                      float>>({1, 50}, true);
}

BOOST_AUTO_TEST_CASE(blend_with_the_token_and_tokens_times_k) {
    compare<gf::layer<gf::config{.hidden = 20,
                                 .ffn = 8,
                                 .experts = 4,
                                 .router = {.from = gf::score::sigmoid, .acts_on = gf::weight_at::blend},
                                 .capacity = {.rule = gf::capacity_rule::megatron, .factor = 0.7f}},
                      float>>({1, 50});
    compare<gf::layer<gf::config{.hidden = 20,
                                 .ffn = 8,
                                 .experts = 4,
                                 .top_k = 2,
                                 .router = {.input_times_k = true},
                                 .shared = {.ffn = 8, .gate = true},
                                 .free = {.constant = 1, .copy = 1}},
                      float>>({1, 50});
}

BOOST_AUTO_TEST_CASE(routers_that_make_their_own_input_or_look_at_the_batch) {
    using gf::config;
    compare<gf::layer<config{.hidden = 20,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.noise = 0.1f, .noise_on = gf::input_noise::shared_jitter_twice},
                             .shared = {.ffn = 8, .gate = true}},
                      float>>({1, 50}, false, true);
    compare<gf::layer<config{.hidden = 20,
                             .ffn = 8,
                             .experts = 8,
                             .top_k = 2,
                             .router = {.transform = gf::logit_transform::noisy_top_k}},
                      float>>({1, 50}, false, true);
    compare<gf::layer<config{.hidden = 20,
                             .ffn = 8,
                             .experts = 8,
                             .top_k = 2,
                             .router = {.select = gf::selection::expert_choice, .allow_future = true}},
                      float>>({1, 200});
    compare<gf::layer<config{.hidden = 20,
                             .ffn = 8,
                             .experts = 8,
                             .top_k = 2,
                             .router = {.select = gf::selection::sinkhorn, .allow_future = true},
                             .capacity = {.rule = gf::capacity_rule::megatron, .factor = 0.8f}},
                      float>>({1, 50}, false, true);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
