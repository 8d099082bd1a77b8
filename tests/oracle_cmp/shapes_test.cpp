// ctest: heavy timeout=900
// Numbers that are no multiple of anything: many experts, many per token, odd widths, prime token counts.
#include <tests/layer_comparison.hpp>

namespace gf = gatefold;

namespace {

template <int Experts, int TopK, class T = double>
using of = gf::layer<gf::config{.hidden = 19, .ffn = 13, .experts = Experts, .top_k = TopK}, T>;

/// What the tokens of a call have in common is only the layer: one, a prime number, more than a tile.
template <class L>
void compare_all(std::uint64_t seed) {
    for (const gf::index_t tokens : {1, 2, 31, 67})
        comparison::compare<L>(tokens, seed + static_cast<std::uint64_t>(tokens));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(oracle)
BOOST_AUTO_TEST_SUITE(shapes)

BOOST_AUTO_TEST_CASE(two_experts) { compare_all<of<2, 1>>(1); }
BOOST_AUTO_TEST_CASE(three_experts_all_chosen) { compare_all<of<3, 3>>(2); }
BOOST_AUTO_TEST_CASE(five_of_seven) { compare_all<of<7, 5, float>>(3); }
BOOST_AUTO_TEST_CASE(six_of_160) { compare_all<of<160, 6>>(4); }
BOOST_AUTO_TEST_CASE(seven_of_384) { compare_all<of<384, 7, float>>(5); }
BOOST_AUTO_TEST_CASE(twenty_two_of_513) { compare_all<of<513, 22>>(6); }
BOOST_AUTO_TEST_CASE(one_wide) {
    compare_all<gf::layer<gf::config{.hidden = 1, .ffn = 1, .experts = 4, .top_k = 2}, double>>(7);
}
BOOST_AUTO_TEST_CASE(wider_than_a_block) {
    comparison::compare<gf::layer<gf::config{.hidden = 611, .ffn = 523, .experts = 3, .top_k = 2}, float>>(123, 8);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
