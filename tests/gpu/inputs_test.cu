// What a router can make of its tokens before and after it has logits, on CUDA against the CPU wing: inputs,
// projections, transforms, noise in training, groups and norms; to the bit.
#include "routing.hpp"

using namespace device;

namespace {

using gf::config;
using gf::router_config;

/// Inference and training, few tokens and many.
template <int E, int K, class T = float>
struct with {
    template <router_config R>
    using layer = gf::layer<config{.hidden = 33, .ffn = 8, .experts = E, .top_k = K, .router = R}, T>;
};
template <class L>
void both(std::initializer_list<int> counts) {
    compare_routing<L>(counts, {.hostile = true});
    compare_routing<L>(counts, {.training = true});
}

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(inputs)

BOOST_AUTO_TEST_CASE(norms_of_the_input) {
    both<with<12, 3>::layer<router_config{.input = gf::router_input::rms_norm}>>({1, 140});
    both<with<12, 3, gf::bf16>::layer<router_config{.input = gf::router_input::unit_length, .bias = true}>>({20});
}

BOOST_AUTO_TEST_CASE(deep_projections) {
    both<with<12, 3>::layer<router_config{.logits = gf::projection::two_layer, .projection_width = 21}>>({1, 140});
    both<with<12, 3, gf::bf16>::layer<router_config{.input = gf::router_input::rms_norm,
                                                    .logits = gf::projection::cosine,
                                                    .projection_width = 9,
                                                    .logits_in = gf::precision::storage,
                                                    .bias = true}>>({1, 140});
}

BOOST_AUTO_TEST_CASE(transforms_of_the_logits) {
    both<with<40, 3>::layer<router_config{.transform = gf::logit_transform::residual}>>({1, 50});
    both<with<40, 3>::layer<router_config{.transform = gf::logit_transform::noisy_top_k}>>({1, 140});
    both<with<12, 2, double>::layer<router_config{.transform = gf::logit_transform::gaussian, .noise = 0.5f}>>({30});
    both<with<12, 2>::layer<router_config{.transform = gf::logit_transform::gumbel, .noise = 0.7f}>>({30});
    both<with<12, 2>::layer<router_config{.transform = gf::logit_transform::normalised, .noise = 2}>>({30});
}

BOOST_AUTO_TEST_CASE(noise_on_the_input_and_drawn_choices) {
    both<with<12, 2, gf::bf16>::layer<router_config{.noise = 0.1f}>>({1, 40});
    both<with<12, 2>::layer<router_config{.noise = 0.3f, .noise_on = gf::input_noise::dropout}>>({40});
    both<with<12, 2, gf::f16>::layer<router_config{.noise = 0.1f, .noise_on = gf::input_noise::shared_jitter_twice}>>(
        {40});
    both<with<12, 2>::layer<router_config{.select = gf::selection::sampled, .noise = 1}>>({40});
    both<with<12, 2>::layer<router_config{.second = gf::second_expert::sampled}>>({40});
    both<with<12, 2>::layer<router_config{
        .second = gf::second_expert::random, .renorm = gf::renormalise::sum, .threshold = 0.4f}>>({40});
}

BOOST_AUTO_TEST_CASE(groups_by_their_share_and_norms) {
    both<with<64, 6>::layer<router_config{.from = gf::score::sigmoid,
                                          .selection_bias = gf::key_bias::score,
                                          .groups = 4,
                                          .kept_groups = 2,
                                          .group_by = gf::group_key::share_sum,
                                          .renorm = gf::renormalise::norm,
                                          .power = 3}>>({40});
}

BOOST_AUTO_TEST_CASE(weights_of_one) {
    both<with<12, 2>::layer<router_config{.learns_from = gf::estimator::straight_through}>>({30});
}

BOOST_AUTO_TEST_CASE(assignment_over_the_batch) {
    constexpr router_config choice{.select = gf::selection::expert_choice, .allow_future = true};
    both<with<12, 2>::layer<choice>>({1, 40, 300});
    both<with<12, 2>::layer<gf::with(choice, &router_config::from, gf::score::sigmoid)>>({40});
    both<with<40, 3>::layer<gf::with(choice, &router_config::from, gf::score::softmax_tokens)>>({300});
    both<gf::layer<config{.hidden = 16,
                          .ffn = 8,
                          .experts = 8,
                          .top_k = 2,
                          .router = choice,
                          .capacity = {.rule = gf::capacity_rule::share,
                                       .factor = 1.5f,
                                       .shared_by = gf::capacity_group::fixed,
                                       .group_size = 17}},
                   float>>({40});
    both<with<12, 2>::layer<router_config{.select = gf::selection::sinkhorn, .allow_future = true}>>({1, 70});
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
