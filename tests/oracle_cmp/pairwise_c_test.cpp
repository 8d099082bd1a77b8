// ctest: heavy timeout=900
// Whole layers against the oracle, forward and backward: a pairwise array of configurations, part 3 of 3. Narrow types
// run over enough tokens that no gradient is a single sum whose terms cancel.
#include <tests/layer_comparison.hpp>

namespace gf = gatefold;

BOOST_AUTO_TEST_SUITE(oracle)
BOOST_AUTO_TEST_SUITE(pairwise_c)

BOOST_AUTO_TEST_CASE(layer_1) {
    comparison::compare<gf::layer<gf::config{.hidden = 33,
                                             .ffn = 5,
                                             .experts = 31,
                                             .top_k = 2,
                                             .act = gf::activation::bilinear,
                                             .bias = true,
                                             .router = {.bias = true,
                                                        .from = gf::score::sqrt_softplus,
                                                        .selection_bias = gf::key_bias::score,
                                                        .renorm = gf::renormalise::sum_plus,
                                                        .epsilon = 0.25f,
                                                        .scale = 2.5f,
                                                        .scaled = gf::scale_at::output,
                                                        .acts_on = gf::weight_at::input},
                                             .capacity = {.rule = gf::capacity_rule::mesh, .factor = 0.75f},
                                             .shared = {.ffn = 11}},
                                  double>>(1, 201);
}
BOOST_AUTO_TEST_CASE(layer_2) {
    comparison::compare<gf::layer<
        gf::config{.hidden = 70,
                   .ffn = 24,
                   .experts = 5,
                   .top_k = 1,
                   .act = gf::activation::limited_swiglu,
                   .limit = 0.75f,
                   .bias = true,
                   .router = {.weights = gf::precision::accumulate, .from = gf::score::softmax_selected, .scale = 2.5f},
                   .shared = {.ffn = 11}},
        float>>(40, 202);
}
BOOST_AUTO_TEST_CASE(layer_3) {
    comparison::compare<gf::layer<gf::config{.hidden = 13,
                                             .ffn = 24,
                                             .experts = 8,
                                             .top_k = 3,
                                             .act = gf::activation::clamped_swiglu,
                                             .limit = 0.75f,
                                             .router = {.weights = gf::precision::accumulate,
                                                        .bias = true,
                                                        .from = gf::score::softmax_selected,
                                                        .groups = 2,
                                                        .kept_groups = 1,
                                                        .group_by = gf::group_key::max,
                                                        .acts_on = gf::weight_at::input},
                                             .capacity = {.rule = gf::capacity_rule::flaxformer, .factor = 0.75f},
                                             .shared = {.ffn = 16, .gate = true}},
                                  gf::bf16>>(40, 203);
}
BOOST_AUTO_TEST_CASE(layer_4) {
    comparison::compare<gf::layer<gf::config{.hidden = 33,
                                             .ffn = 5,
                                             .experts = 3,
                                             .top_k = 1,
                                             .act = gf::activation::swiglu,
                                             .router = {.weights = gf::precision::accumulate,
                                                        .from = gf::score::softmax_selected,
                                                        .groups = 3,
                                                        .kept_groups = 2,
                                                        .group_by = gf::group_key::max},
                                             .capacity = {.rule = gf::capacity_rule::mesh, .factor = 0.75f}},
                                  float>>(7, 204);
}
BOOST_AUTO_TEST_CASE(layer_5) {
    comparison::compare<gf::layer<gf::config{.hidden = 13,
                                             .ffn = 16,
                                             .experts = 12,
                                             .top_k = 3,
                                             .act = gf::activation::reglu,
                                             .bias = true,
                                             .router = {.weights = gf::precision::accumulate,
                                                        .from = gf::score::sqrt_softplus,
                                                        .selection_bias = gf::key_bias::score,
                                                        .groups = 4,
                                                        .kept_groups = 2,
                                                        .group_by = gf::group_key::top2_sum,
                                                        .renorm = gf::renormalise::sum_plus,
                                                        .epsilon = 0.25f,
                                                        .acts_on = gf::weight_at::input},
                                             .shared = {.ffn = 9, .act = gf::activation::relu_squared}},
                                  float>>(7, 205);
}
BOOST_AUTO_TEST_CASE(layer_6) {
    comparison::compare<gf::layer<gf::config{.hidden = 13,
                                             .ffn = 5,
                                             .experts = 3,
                                             .top_k = 2,
                                             .act = gf::activation::gelu_tanh,
                                             .router = {.bias = true,
                                                        .from = gf::score::sqrt_softplus,
                                                        .groups = 3,
                                                        .kept_groups = 2,
                                                        .group_by = gf::group_key::max,
                                                        .renorm = gf::renormalise::max_of,
                                                        .epsilon = 0.25f},
                                             .shared = {.ffn = 11}},
                                  gf::bf16>>(40, 206);
}
BOOST_AUTO_TEST_CASE(layer_7) {
    comparison::compare<gf::layer<
        gf::config{.hidden = 8,
                   .ffn = 16,
                   .experts = 5,
                   .top_k = 4,
                   .act = gf::activation::reglu,
                   .bias = true,
                   .router = {.bias = true, .from = gf::score::sigmoid, .renorm = gf::renormalise::sum, .scale = 2.5f},
                   .capacity = {.rule = gf::capacity_rule::megatron, .factor = 0.75f},
                   .shared = {.ffn = 16, .gate = true}},
        gf::bf16>>(40, 207);
}
BOOST_AUTO_TEST_CASE(layer_8) {
    comparison::compare<
        gf::layer<gf::config{.hidden = 32,
                             .ffn = 37,
                             .experts = 31,
                             .top_k = 4,
                             .act = gf::activation::relu,
                             .bias = true,
                             .router = {.weights = gf::precision::accumulate,
                                        .bias = true,
                                        .from = gf::score::softmax_selected,
                                        .acts_on = gf::weight_at::input},
                             .shared = {.ffn = 7, .gate = true, .act = gf::activation::geglu_tanh, .bias = true}},
                  float>>(1, 208);
}
BOOST_AUTO_TEST_CASE(layer_9) {
    comparison::compare<gf::layer<gf::config{.hidden = 33,
                                             .ffn = 37,
                                             .experts = 12,
                                             .top_k = 3,
                                             .act = gf::activation::relu_squared,
                                             .router = {.weights = gf::precision::accumulate,
                                                        .groups = 4,
                                                        .kept_groups = 2,
                                                        .group_by = gf::group_key::top2_sum,
                                                        .renorm = gf::renormalise::max_of,
                                                        .epsilon = 0.25f,
                                                        .scale = 2.5f,
                                                        .scaled = gf::scale_at::output},
                                             .capacity = {.rule = gf::capacity_rule::megatron, .factor = 0.75f},
                                             .shared = {.ffn = 16, .gate = true}},
                                  gf::bf16>>(40, 209);
}
BOOST_AUTO_TEST_CASE(layer_10) {
    comparison::compare<gf::layer<gf::config{.hidden = 70,
                                             .ffn = 24,
                                             .experts = 31,
                                             .top_k = 4,
                                             .act = gf::activation::gelu_erf,
                                             .bias = true,
                                             .router = {.weights = gf::precision::accumulate,
                                                        .from = gf::score::sqrt_softplus,
                                                        .selection_bias = gf::key_bias::score,
                                                        .renorm = gf::renormalise::sum,
                                                        .scale = 2.5f,
                                                        .scaled = gf::scale_at::output},
                                             .capacity = {.rule = gf::capacity_rule::flaxformer, .factor = 0.75f},
                                             .shared = {.ffn = 9, .act = gf::activation::relu_squared}},
                                  gf::bf16>>(40, 210);
}
BOOST_AUTO_TEST_CASE(layer_11) {
    comparison::compare<gf::layer<
        gf::config{.hidden = 8,
                   .ffn = 5,
                   .experts = 3,
                   .top_k = 3,
                   .act = gf::activation::geglu_erf,
                   .router = {.bias = true, .from = gf::score::softmax_selected, .acts_on = gf::weight_at::input},
                   .capacity = {.rule = gf::capacity_rule::megatron, .factor = 0.75f},
                   .shared = {.ffn = 9, .act = gf::activation::relu_squared}},
        double>>(7, 211);
}
BOOST_AUTO_TEST_CASE(layer_12) {
    comparison::compare<
        gf::layer<gf::config{.hidden = 8,
                             .ffn = 24,
                             .experts = 2,
                             .top_k = 2,
                             .act = gf::activation::gelu_tanh,
                             .bias = true,
                             .router = {.bias = true,
                                        .selection_bias = gf::key_bias::score,
                                        .renorm = gf::renormalise::max_of,
                                        .epsilon = 0.25f,
                                        .acts_on = gf::weight_at::input},
                             .capacity = {.rule = gf::capacity_rule::mesh, .factor = 0.75f},
                             .shared = {.ffn = 7, .gate = true, .act = gf::activation::geglu_tanh, .bias = true}},
                  gf::bf16>>(40, 212);
}
BOOST_AUTO_TEST_CASE(layer_13) {
    comparison::compare<gf::layer<gf::config{.hidden = 8,
                                             .ffn = 16,
                                             .experts = 2,
                                             .top_k = 1,
                                             .act = gf::activation::geglu_tanh,
                                             .bias = true,
                                             .router = {.weights = gf::precision::accumulate,
                                                        .selection_bias = gf::key_bias::score,
                                                        .groups = 2,
                                                        .kept_groups = 1,
                                                        .group_by = gf::group_key::max,
                                                        .scale = 2.5f,
                                                        .scaled = gf::scale_at::output},
                                             .shared = {.ffn = 11}},
                                  double>>(40, 213);
}
BOOST_AUTO_TEST_CASE(layer_14) {
    comparison::compare<gf::layer<gf::config{.hidden = 32,
                                             .ffn = 37,
                                             .experts = 12,
                                             .top_k = 2,
                                             .act = gf::activation::relu_squared,
                                             .router = {.bias = true,
                                                        .from = gf::score::softmax_selected,
                                                        .groups = 3,
                                                        .kept_groups = 2,
                                                        .group_by = gf::group_key::max,
                                                        .scale = 2.5f,
                                                        .acts_on = gf::weight_at::input},
                                             .capacity = {.rule = gf::capacity_rule::flaxformer, .factor = 0.75f},
                                             .shared = {.ffn = 9, .act = gf::activation::relu_squared}},
                                  float>>(1, 214);
}
BOOST_AUTO_TEST_CASE(layer_15) {
    comparison::compare<gf::layer<gf::config{.hidden = 8,
                                             .ffn = 16,
                                             .experts = 12,
                                             .top_k = 4,
                                             .act = gf::activation::bilinear,
                                             .bias = true,
                                             .router = {.groups = 4,
                                                        .kept_groups = 2,
                                                        .group_by = gf::group_key::top2_sum,
                                                        .renorm = gf::renormalise::sum},
                                             .capacity = {.rule = gf::capacity_rule::flaxformer, .factor = 0.75f},
                                             .shared = {.ffn = 16, .gate = true}},
                                  gf::bf16>>(40, 215);
}
BOOST_AUTO_TEST_CASE(layer_16) {
    comparison::compare<
        gf::layer<gf::config{.hidden = 32,
                             .ffn = 37,
                             .experts = 31,
                             .top_k = 1,
                             .act = gf::activation::gelu_tanh,
                             .bias = true,
                             .router = {.weights = gf::precision::accumulate, .bias = true, .scale = 2.5f},
                             .capacity = {.rule = gf::capacity_rule::flaxformer, .factor = 0.75f},
                             .shared = {.ffn = 16, .gate = true}},
                  gf::bf16>>(40, 216);
}
BOOST_AUTO_TEST_CASE(layer_17) {
    comparison::compare<
        gf::layer<gf::config{.hidden = 33,
                             .ffn = 37,
                             .experts = 5,
                             .top_k = 4,
                             .act = gf::activation::swiglu,
                             .router = {.weights = gf::precision::accumulate,
                                        .selection_bias = gf::key_bias::score,
                                        .renorm = gf::renormalise::sum},
                             .capacity = {.rule = gf::capacity_rule::megatron, .factor = 0.75f},
                             .shared = {.ffn = 7, .gate = true, .act = gf::activation::geglu_tanh, .bias = true}},
                  double>>(40, 217);
}
BOOST_AUTO_TEST_CASE(layer_18) {
    comparison::compare<gf::layer<gf::config{.hidden = 32,
                                             .ffn = 5,
                                             .experts = 31,
                                             .top_k = 4,
                                             .act = gf::activation::gelu_tanh,
                                             .router = {.from = gf::score::sigmoid,
                                                        .selection_bias = gf::key_bias::score,
                                                        .renorm = gf::renormalise::sum,
                                                        .acts_on = gf::weight_at::input},
                                             .capacity = {.rule = gf::capacity_rule::megatron, .factor = 0.75f}},
                                  double>>(7, 218);
}
BOOST_AUTO_TEST_CASE(layer_19) {
    comparison::compare<gf::layer<gf::config{.hidden = 13,
                                             .ffn = 5,
                                             .experts = 8,
                                             .top_k = 4,
                                             .act = gf::activation::geglu_tanh,
                                             .bias = true,
                                             .router = {.weights = gf::precision::accumulate,
                                                        .bias = true,
                                                        .selection_bias = gf::key_bias::score,
                                                        .groups = 2,
                                                        .kept_groups = 1,
                                                        .group_by = gf::group_key::top2_sum,
                                                        .renorm = gf::renormalise::sum_plus,
                                                        .epsilon = 0.25f,
                                                        .scale = 2.5f},
                                             .capacity = {.rule = gf::capacity_rule::mesh, .factor = 0.75f}},
                                  gf::bf16>>(40, 219);
}
BOOST_AUTO_TEST_CASE(layer_20) {
    comparison::compare<gf::layer<gf::config{.hidden = 13,
                                             .ffn = 16,
                                             .experts = 12,
                                             .top_k = 3,
                                             .act = gf::activation::relu,
                                             .bias = true,
                                             .router = {.weights = gf::precision::accumulate,
                                                        .from = gf::score::sqrt_softplus,
                                                        .selection_bias = gf::key_bias::score,
                                                        .groups = 2,
                                                        .kept_groups = 1,
                                                        .group_by = gf::group_key::top2_sum,
                                                        .scale = 2.5f},
                                             .capacity = {.rule = gf::capacity_rule::flaxformer, .factor = 0.75f},
                                             .shared = {.ffn = 11}},
                                  float>>(40, 220);
}
BOOST_AUTO_TEST_CASE(layer_21) {
    comparison::compare<gf::layer<gf::config{.hidden = 33,
                                             .ffn = 24,
                                             .experts = 12,
                                             .top_k = 2,
                                             .act = gf::activation::geglu_erf,
                                             .router = {.weights = gf::precision::accumulate,
                                                        .bias = true,
                                                        .from = gf::score::softmax_selected,
                                                        .groups = 4,
                                                        .kept_groups = 2,
                                                        .group_by = gf::group_key::top2_sum,
                                                        .acts_on = gf::weight_at::input},
                                             .capacity = {.rule = gf::capacity_rule::mesh, .factor = 0.75f},
                                             .shared = {.ffn = 16, .gate = true}},
                                  double>>(40, 221);
}
BOOST_AUTO_TEST_CASE(layer_22) {
    comparison::compare<
        gf::layer<gf::config{.hidden = 13,
                             .ffn = 24,
                             .experts = 5,
                             .top_k = 3,
                             .act = gf::activation::bilinear,
                             .bias = true,
                             .router = {.weights = gf::precision::accumulate,
                                        .bias = true,
                                        .from = gf::score::sqrt_softplus,
                                        .selection_bias = gf::key_bias::score,
                                        .renorm = gf::renormalise::sum_plus,
                                        .epsilon = 0.25f,
                                        .scale = 2.5f},
                             .capacity = {.rule = gf::capacity_rule::mesh, .factor = 0.75f},
                             .shared = {.ffn = 7, .gate = true, .act = gf::activation::geglu_tanh, .bias = true}},
                  double>>(7, 222);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
