// Routing on CUDA against the CPU wing: logits, ids, weights and counts to the bit, for every kind of choice.
#include "routing.hpp"

namespace gf = gatefold;
using namespace device;

namespace {

using gf::config;

constexpr gf::router_config grouped{.select = gf::selection::top_k,
                                    .from = gf::score::sigmoid,
                                    .selection_bias = gf::key_bias::score,
                                    .groups = 4,
                                    .kept_groups = 2,
                                    .group_by = gf::group_key::top2_sum,
                                    .renorm = gf::renormalise::sum_plus,
                                    .epsilon = 1e-20f,
                                    .scale = 2.5f};

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(router)

BOOST_AUTO_TEST_CASE(softmax_of_all_and_of_the_chosen) {
    compare_routing<gf::layer<config{.hidden = 33, .ffn = 8, .experts = 60, .top_k = 6}, float>>({1, 7, 150});
    compare_routing<gf::layer<config{.hidden = 64,
                                     .ffn = 8,
                                     .experts = 8,
                                     .top_k = 2,
                                     .router = {.bias = true, .from = gf::score::softmax_selected}},
                              float>>({1, 40}, {.hostile = true});
}

BOOST_AUTO_TEST_CASE(sigmoid_with_bias_and_groups) {
    compare_routing<gf::layer<config{.hidden = 24, .ffn = 8, .experts = 160, .top_k = 4, .router = grouped}, float>>(
        {9, 131}, {.hostile = true});
}

BOOST_AUTO_TEST_CASE(bf16_tokens_double_tokens_renormalised) {
    constexpr config c{.hidden = 40, .ffn = 8, .experts = 24, .top_k = 3, .router = {.renorm = gf::renormalise::sum}};
    compare_routing<gf::layer<c, gf::bf16>>({1, 30});
    compare_routing<gf::layer<c, double>>({30}, {.hostile = true});
}

BOOST_AUTO_TEST_CASE(choices_of_another_kind) {
    compare_routing<gf::layer<config{.hidden = 16,
                                     .ffn = 8,
                                     .experts = 16,
                                     .top_k = 2,
                                     .router = {.select = gf::selection::sparse_mixer, .noise = 0.01f}},
                              float>>({20}, {.hostile = true});
    compare_routing<gf::layer<config{.hidden = 16,
                                     .ffn = 8,
                                     .experts = 40,
                                     .top_k = 40,
                                     .router = {.select = gf::selection::positive, .from = gf::score::relu}},
                              float>>({20}, {.hostile = true});
    compare_routing<gf::layer<config{.hidden = 16,
                                     .ffn = 8,
                                     .experts = 40,
                                     .top_k = 5,
                                     .router = {.select = gf::selection::top_p, .threshold = 0.3f}},
                              float>>({20}, {.hostile = true});
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
