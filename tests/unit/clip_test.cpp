// ctest: heavy
// The global norm against a plain sum, for sizes around the blocks it is summed in.
#include <cmath>

#include <boost/test/unit_test.hpp>

#include <gatefold/train/clip.hpp>

namespace gf = gatefold;

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(clip)

BOOST_AUTO_TEST_CASE(norm_is_that_of_all_gradients_together) {
    using L = gf::layer<gf::config{.hidden = 61, .ffn = 67, .experts = 3, .top_k = 2}, float>;
    gf::context<gf::cpu> ctx(1), three(3);
    auto g = gf::make_gradients<L>(ctx);
    double sum = 0, phase = 0;
    gf::for_each_parameter(
        [&](const char*, auto& slot) {
            phase += 1;
            for (gf::index_t i = 0; i < slot.size(); ++i) {
                slot.data()[i] = static_cast<float>(std::sin(phase * static_cast<double>(i)));
                sum += static_cast<double>(slot.data()[i]) * static_cast<double>(slot.data()[i]);
            }
        },
        g);
    BOOST_TEST(gf::global_norm(ctx, g) == std::sqrt(sum), boost::test_tools::tolerance(1e-6));
    BOOST_TEST(gf::global_norm(ctx, g) == gf::global_norm(three, g));
}

BOOST_AUTO_TEST_CASE(factor_bounds_the_norm) {
    BOOST_TEST(gf::clip_factor(0.5, 1) == 1.0);
    BOOST_TEST(gf::clip_factor(4, 1) == 1 / (4 + 1e-6));
    BOOST_TEST(gf::clip_factor(4, 0) == 1.0);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
