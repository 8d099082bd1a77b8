// ctest: heavy
// Rotary embedding against its formula in long double, and its inverse.
#include <cmath>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/nn/rope.hpp>

namespace gf = gatefold;

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(rope)

template <class T, int HeadSize>
void check_formula(double tolerance) {
    gf::context<gf::cpu> ctx;
    constexpr int heads = 3, length = 5, sequences = 2, first = 4;
    const gf::rope_table<T, HeadSize> table(ctx, 16, 10000);
    auto x = gf::make_tensor<T, gf::dyn, heads * HeadSize>(ctx, sequences * length);
    for (gf::index_t i = 0; i < x.size(); ++i) x.data()[i] = static_cast<T>(std::sin(static_cast<double>(i) * 0.7));
    std::vector<T> before(x.data(), x.data() + x.size());

    gf::rotate(ctx, table, x.view(), length, first);
    for (int r = 0; r < sequences * length; ++r)
        for (int h = 0; h < heads; ++h)
            for (int i = 0; i < HeadSize / 2; ++i) {
                const long double angle = (first + r % length) * std::pow(10000.0L, -2.0L * i / HeadSize);
                const auto at = static_cast<std::size_t>(r * heads * HeadSize + h * HeadSize + i);
                const long double low = before[at], high = before[at + HeadSize / 2];
                const auto want_low = static_cast<double>(low * std::cos(angle) - high * std::sin(angle));
                const auto want_high = static_cast<double>(high * std::cos(angle) + low * std::sin(angle));
                BOOST_TEST(std::fabs(static_cast<double>(x.data()[at]) - want_low) < tolerance);
                BOOST_TEST(std::fabs(static_cast<double>(x.data()[at + HeadSize / 2]) - want_high) < tolerance);
            }

    gf::rotate_back(ctx, table, x.view(), length, first);
    for (std::size_t i = 0; i < before.size(); ++i)
        BOOST_TEST(std::fabs(static_cast<double>(x.data()[i] - before[i])) < 2 * tolerance);
}

BOOST_AUTO_TEST_CASE(follows_the_formula_and_turns_back) {
    check_formula<double, 6>(1e-14);
    check_formula<double, 32>(1e-14);
    check_formula<float, 6>(3e-7);
    check_formula<float, 40>(3e-7);
}

BOOST_AUTO_TEST_CASE(scores_depend_on_the_distance_only) {
    gf::context<gf::cpu> ctx;
    const gf::rope_table<double, 8> table(ctx, 64, 10000);
    const auto score = [&](gf::index_t query, gf::index_t key) {
        auto q = gf::make_tensor<double, gf::dyn, 8>(ctx, 1), k = gf::make_tensor<double, gf::dyn, 8>(ctx, 1);
        for (int i = 0; i < 8; ++i) q.data()[i] = 0.3 * i - 1, k.data()[i] = std::cos(i);
        gf::rotate(ctx, table, q.view(), 1, query);
        gf::rotate(ctx, table, k.view(), 1, key);
        double sum = 0;
        for (int i = 0; i < 8; ++i) sum += q.data()[i] * k.data()[i];
        return sum;
    };
    BOOST_TEST(score(9, 4) == score(50, 45), boost::test_tools::tolerance(1e-12));
    BOOST_TEST(std::fabs(score(9, 4) - score(9, 5)) > 1e-3);
}

BOOST_AUTO_TEST_CASE(refuses_positions_outside_the_table) {
    gf::context<gf::cpu> ctx;
    const gf::rope_table<float, 4> table(ctx, 8, 10000);
    auto x = gf::make_tensor<float, gf::dyn, 8>(ctx, 6);
    BOOST_CHECK_THROW(gf::rotate(ctx, table, x.view(), 6, 3), gf::argument_error);
    BOOST_CHECK_THROW(gf::rotate(ctx, table, x.view(), 4), gf::argument_error);
    BOOST_CHECK_THROW((gf::rope_table<float, 4>(ctx, 8, 1)), gf::argument_error);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
