// ctest: heavy timeout=900
// The router alone against the oracle: ids, weights, capacity, and every gradient, over generated configurations.
//
// One type stands for one set of axes; tokens, scales, noise, ties and broken logits vary inside it. A failure prints
// the type's number and the seed, which is enough to repeat it.
#include <tests/routing_comparison.hpp>

using namespace routing_comparison;

BOOST_AUTO_TEST_SUITE(oracle)
BOOST_AUTO_TEST_SUITE(routers)

BOOST_AUTO_TEST_CASE(scores_and_divisors) {
    compare_all<with_router(4, 2, {})>();
    compare_all<with_router(7, 3, {.renorm = gf::renormalise::sum})>();
    compare_all<with_router(5, 2, {.renorm = gf::renormalise::sum_plus, .epsilon = 1e-9f, .scale = 2.5f})>();
    compare_all<with_router(6, 3, {.bias = true, .renorm = gf::renormalise::max_of, .epsilon = 0.5f})>();
    compare_all<with_router(4, 2, {.bias = true, .from = gf::score::softmax_selected})>();
    compare_all<with_router(9, 4, {.bias = true, .from = gf::score::sigmoid})>();
    compare_all<with_router(8, 1, {.from = gf::score::sigmoid, .acts_on = gf::weight_at::input})>();
    compare_all<with_router(
        8, 3, {.bias = true, .from = gf::score::sigmoid, .renorm = gf::renormalise::sum, .scale = 1.5f})>();
    compare_all<with_router(6, 2, {.bias = true, .from = gf::score::sqrt_softplus})>();
    compare_all<with_router(6, 4,
                            {.bias = true,
                             .from = gf::score::sqrt_softplus,
                             .renorm = gf::renormalise::sum_plus,
                             .epsilon = 1e-20f,
                             .scale = 1.5f})>();
    compare_all<with_router(5, 2, {.from = gf::score::identity})>();
    compare_all<with_router(40, 22, {.bias = true, .renorm = gf::renormalise::sum})>();
}

BOOST_AUTO_TEST_CASE(keys_and_groups) {
    compare_all<with_router(6, 2, {.bias = true, .selection_bias = gf::key_bias::score})>();
    compare_all<with_router(6, 2,
                            {.bias = true, .selection_bias = gf::key_bias::logit, .renorm = gf::renormalise::sum})>();
    compare_all<with_router(
        8, 3,
        {.bias = true, .from = gf::score::sigmoid, .groups = 4, .kept_groups = 2, .group_by = gf::group_key::max})>();
    compare_all<with_router(8, 3,
                            {.bias = true,
                             .from = gf::score::sigmoid,
                             .groups = 4,
                             .kept_groups = 2,
                             .group_by = gf::group_key::top2_sum})>();
    compare_all<with_router(9, 2,
                            {.bias = true,
                             .groups = 3,
                             .kept_groups = 1,
                             .group_by = gf::group_key::max,
                             .masked = gf::group_mask::zero,
                             .renorm = gf::renormalise::sum})>();
    compare_all<with_router(8, 3,
                            {.bias = true,
                             .from = gf::score::sigmoid,
                             .selection_bias = gf::key_bias::score,
                             .groups = 4,
                             .kept_groups = 2,
                             .group_by = gf::group_key::top2_sum,
                             .masked = gf::group_mask::zero,
                             .renorm = gf::renormalise::sum_plus,
                             .epsilon = 1e-20f,
                             .scale = 2.5f})>();
    compare_all<with_router(8, 4,
                            {.bias = true,
                             .from = gf::score::identity,
                             .groups = 2,
                             .kept_groups = 1,
                             .group_by = gf::group_key::top2_sum})>();
}

BOOST_AUTO_TEST_CASE(inputs_and_projections) {
    compare_all<with_router(
        5, 2, {.input = gf::router_input::rms_norm, .renorm = gf::renormalise::sum, .expert_scale = true})>();
    compare_all<with_router(5, 2, {.input = gf::router_input::unit_length, .bias = true})>();
    compare_all<with_router(5, 2, {.logits = gf::projection::two_layer, .projection_width = 3, .bias = true})>();
    compare_all<with_router(5, 2, {.logits = gf::projection::cosine, .projection_width = 4, .bias = true})>();
    compare_all<with_router(5, 2,
                            {.input = gf::router_input::rms_norm,
                             .logits = gf::projection::two_layer,
                             .projection_width = 5,
                             .noise = 0.1f})>();
    compare_all<with_router(5, 2,
                            {.input = gf::router_input::unit_length,
                             .logits = gf::projection::cosine,
                             .projection_width = 2,
                             .transform = gf::logit_transform::normalised,
                             .noise = 2})>();
    compare_all<with_router(5, 2,
                            {.bias = true, .transform = gf::logit_transform::noisy_top_k, .expert_scale = true})>();
    compare_all<with_router(5, 2, {.bias = true, .transform = gf::logit_transform::gaussian, .noise = 3})>();
    compare_all<with_router(
        5, 2, {.bias = true, .transform = gf::logit_transform::gumbel, .renorm = gf::renormalise::sum, .noise = 1})>();
    compare_all<with_router(
        5, 2, {.bias = true, .transform = gf::logit_transform::residual, .renorm = gf::renormalise::sum})>();
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
