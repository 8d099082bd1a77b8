// ctest: timeout=900
// Layers of float and double whose numbers are no multiple of anything, against the oracle: experts up to 513, 22 per
// token, odd widths, no token, one, a prime number; empty experts, one for all, NaN and infinities.
#include "examine.hpp"

namespace gf = gatefold;
using device::examination;
using gf::config;

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(shapes)

BOOST_AUTO_TEST_CASE(dense_with_biases) {
    examination<gf::layer<config{.hidden = 33, .ffn = 17, .act = gf::activation::gelu_erf, .bias = true}, float>>(1)
        .run({1, 13, 67});
}
BOOST_AUTO_TEST_CASE(one_of_two) {
    examination<gf::layer<config{.hidden = 19, .ffn = 13, .experts = 2}, double>>(2).run({1, 67});
}
BOOST_AUTO_TEST_CASE(all_of_three) {
    examination<gf::layer<
        config{.hidden = 31, .ffn = 45, .experts = 3, .top_k = 3, .act = gf::activation::relu_squared}, float>>(3)
        .run({1, 131});
}
BOOST_AUTO_TEST_CASE(two_of_five_and_a_shared_one) {
    examination<gf::layer<config{.hidden = 24,
                                 .ffn = 21,
                                 .experts = 5,
                                 .top_k = 2,
                                 .router = {.renorm = gf::renormalise::sum, .acts_on = gf::weight_at::input},
                                 .shared = {.ffn = 11, .gate = true}},
                          float>>(4)
        .run({1, 67});
}
BOOST_AUTO_TEST_CASE(eight_of_384_in_groups) {
    examination<gf::layer<config{.hidden = 20,
                                 .ffn = 12,
                                 .experts = 384,
                                 .top_k = 8,
                                 .router = gf::with(gf::routers::deepseek_v3, &gf::router_config::groups, 8,
                                                    &gf::router_config::kept_groups, 4)},
                          float>>(5)
        .run({1, 131});
}
BOOST_AUTO_TEST_CASE(twenty_two_of_513) {
    examination<gf::layer<config{.hidden = 19, .ffn = 13, .experts = 513, .top_k = 22}, double>>(6).run({1, 67});
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
