// ctest: timeout=900
// Layers of 16-bit floats whose numbers are no multiple of anything, against the oracle: the same list as for float and
// double, on the tensor cores.
#include "examine.hpp"

namespace gf = gatefold;
using device::examination;
using gf::config;

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(narrow_shapes)

BOOST_AUTO_TEST_CASE(dense_of_odd_widths) {
    examination<gf::layer<config{.hidden = 67, .ffn = 45}, gf::bf16>>(1).run({1, 67});
}
BOOST_AUTO_TEST_CASE(two_of_three_clamped_with_biases) {
    examination<gf::layer<config{.hidden = 48,
                                 .ffn = 40,
                                 .experts = 3,
                                 .top_k = 2,
                                 .act = gf::activation::clamped_swiglu,
                                 .limit = 7,
                                 .bias = true,
                                 .router = gf::routers::gpt_oss},
                          gf::bf16>>(2)
        .run({1, 13, 211});
}
BOOST_AUTO_TEST_CASE(eight_of_160) {
    examination<
        gf::layer<config{.hidden = 64, .ffn = 24, .experts = 160, .top_k = 8, .router = gf::routers::qwen3}, gf::bf16>>(
        3)
        .run({1, 131});
}
BOOST_AUTO_TEST_CASE(seven_of_384_of_odd_widths_and_a_shared_one) {
    examination<gf::layer<config{.hidden = 35,
                                 .ffn = 21,
                                 .experts = 384,
                                 .top_k = 7,
                                 .router = {.from = gf::score::sigmoid, .renorm = gf::renormalise::sum},
                                 .shared = {.ffn = 16}},
                          gf::f16>>(4)
        .run({1, 67});
}
BOOST_AUTO_TEST_CASE(twenty_two_of_513) {
    examination<gf::layer<config{.hidden = 40, .ffn = 16, .experts = 513, .top_k = 22}, gf::bf16>>(5).run({1, 67});
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
