// The z-loss of the head: the oracle's value and gradient, ignored targets, threads.
#include <cmath>
#include <limits>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/core/context.hpp>
#include <gatefold/moe/head_z_loss.hpp>
#include <tests/oracle.hpp>

namespace gf = gatefold;

namespace {

std::vector<double> numbers(std::size_t n) {
    std::vector<double> v(n);
    std::uint64_t state = 99;
    for (double& x : v) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        x = 4 * (static_cast<double>(state >> 11) * 0x1p-52 - 1);
    }
    return v;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(head_z_loss)

BOOST_AUTO_TEST_CASE(value_and_gradient) {
    const auto z = numbers(13 * 9);
    const std::vector<std::int32_t> targets = {1, -100, 3, 0, 0, -100, 8, 2, 2, 2, 5, -100, 1};
    const std::vector<double> mask = {1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1};
    for (const bool masked : {false, true})
        for (const int threads : {1, 3}) {
            gf::context<gf::cpu> ctx(threads);
            std::vector<double> d(z.size(), 0.5);
            gf::view<const std::int32_t, gf::dyn> ids;
            if (masked) ids = {targets.data(), {13}};
            const double value = gf::add_head_z_loss(ctx, gf::view<const double, gf::dyn, 9>(z.data(), {13, 9}),
                                                     {d.data(), {13, 9}}, 0.3, ids);
            const oracle::loss theirs = oracle::z_loss(z, 13, 9, 0.3, masked ? mask : std::vector<double>{});
            BOOST_TEST(std::fabs(value - theirs.value) <= 1e-13 * theirs.value);
            for (std::size_t i = 0; i < d.size(); ++i) BOOST_TEST(std::fabs(d[i] - 0.5 - theirs.dp[i]) <= 1e-14);
        }
}

BOOST_AUTO_TEST_CASE(nothing_to_count) {
    gf::context<gf::cpu> ctx(2);
    std::vector<float> z(6, -std::numeric_limits<float>::infinity()), d(6, 2.0f);
    const gf::view<const float, gf::dyn, 3> rows(z.data(), {2, 3});
    BOOST_TEST(gf::add_head_z_loss(ctx, rows, {d.data(), {2, 3}}) == 0);
    const std::vector<std::int32_t> none = {-100, -100};
    z.assign(6, 1.0f);
    BOOST_TEST(gf::add_head_z_loss(ctx, rows, {d.data(), {2, 3}}, 1, {none.data(), {2}}) == 0);
    BOOST_TEST(d == std::vector<float>(6, 2.0f), boost::test_tools::per_element());
    BOOST_CHECK_THROW(gf::add_head_z_loss(ctx, rows, {d.data(), {1, 3}}), gf::argument_error);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
