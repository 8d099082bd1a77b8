// ctest: heavy
// Layers whose experts work on a projection of the tokens, and layers with experts that compute nothing, against the
// oracle.
#include <tests/layer_comparison.hpp>

namespace gf = gatefold;

namespace {

using nemotron = gf::layer<gf::config{.hidden = 24,
                                      .ffn = 20,
                                      .experts = 6,
                                      .top_k = 3,
                                      .act = gf::activation::relu_squared,
                                      .router = {.from = gf::score::sigmoid,
                                                 .selection_bias = gf::key_bias::score,
                                                 .renorm = gf::renormalise::sum_plus,
                                                 .epsilon = 1e-20f,
                                                 .scale = 5},
                                      .shared = {.ffn = 10, .act = gf::activation::relu_squared},
                                      .latent = 9},
                           double>;
template <class T>
using normalised = gf::layer<gf::config{.hidden = 33,
                                        .ffn = 12,
                                        .experts = 5,
                                        .top_k = 2,
                                        .bias = true,
                                        .router = {.renorm = gf::renormalise::sum,
                                                   .scale = 2.5f,
                                                   .scaled = gf::scale_at::output,
                                                   .acts_on = gf::weight_at::input},
                                        .shared = {.ffn = 7, .gate = true},
                                        .latent = 17,
                                        .latent_norm = true},
                             T>;
using scaled_free = gf::layer<gf::config{.hidden = 12,
                                         .ffn = 20,
                                         .experts = 5,
                                         .top_k = 3,
                                         .router = {.scale = 2.5f, .scaled = gf::scale_at::output},
                                         .free = {.constant = 2, .copy = 1, .zero = 1}},
                              double>;

}  // namespace

BOOST_AUTO_TEST_SUITE(oracle)
BOOST_AUTO_TEST_SUITE(latent)

BOOST_AUTO_TEST_CASE(projected_experts) { comparison::compare<nemotron>(23, 1); }
BOOST_AUTO_TEST_CASE(normalised_in_double) { comparison::compare<normalised<double>>(21, 2); }
BOOST_AUTO_TEST_CASE(normalised_in_float) { comparison::compare<normalised<float>>(40, 3); }
BOOST_AUTO_TEST_CASE(free_experts_with_a_scale_on_the_sum) { comparison::compare<scaled_free>(43, 4); }

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
