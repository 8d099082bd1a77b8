// ctest: heavy
// Controllers that balance without a gradient: against the oracle, by hand, and what they refuse.
#include <cmath>
#include <cstring>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>

#include "loss_routing.hpp"

namespace {

using namespace loss_routing;
using counts_type = std::vector<gf::index_t>;

gf::view<const gf::index_t, gf::dyn> seen(const counts_type& c) {
    return {c.data(), {static_cast<gf::index_t>(c.size())}};
}
gf::view<double, gf::dyn> all(std::vector<double>& v) { return {v.data(), {static_cast<gf::index_t>(v.size())}}; }

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(balance)

BOOST_AUTO_TEST_CASE(sign_and_difference_are_the_oracles) {
    const counts_type counts = {5, 0, 9, 4, 2, 4};
    const std::vector<double> numbers(counts.begin(), counts.end());
    std::vector<double> bias = {0.1, -0.2, 0, 0.3, 0.5, 0}, same = bias;
    for (int step = 0; step < 3; ++step) {
        gf::update(gf::sign_bias{0.01}, all(bias), seen(counts));
        same = oracle::sign_bias_update(same, numbers, 0.01);
    }
    BOOST_TEST(bias == same, boost::test_tools::per_element());
    BOOST_TEST(bias[3] == 0.3);  // at the mean: sign(0) = 0
    gf::update(gf::additive_bias{0.01}, all(bias), seen(counts));
    same = oracle::additive_bias_update(same, numbers, 0.01);
    for (std::size_t i = 0; i < bias.size(); ++i) BOOST_TEST(std::fabs(bias[i] - same[i]) < 1e-15);
}

BOOST_AUTO_TEST_CASE(a_mean_that_is_no_whole_number_has_no_false_tie) {
    // Mean 7/3: in single precision 3 · (7/3) may or may not be 7.
    std::vector<float> bias(3, 0.0f);
    gf::update(gf::sign_bias{}, gf::view<float, 3>(bias.data(), {3}), seen({2, 2, 3}));
    BOOST_TEST(bias[0] == 0.001f);
    BOOST_TEST(bias[2] == -0.001f);
}

BOOST_AUTO_TEST_CASE(the_sign_rule_evens_the_load) {
    using L = gf::layer<around<8, 2>(gf::with(gf::routers::glm4_air, &gf::router_config::epsilon, 1e-6f)), double>;
    auto z = random_logits(256, 8, 1);
    for (std::size_t t = 0; t < 256; ++t) z[8 * t] += 3;  // everybody's favourite
    routed<L> r(z);
    std::vector<gf::index_t> counts(8);
    const auto imbalance = [&] {
        std::fill(counts.begin(), counts.end(), 0);
        r.forward();
        gf::add_expert_counts(r.tape.routing().ids, {counts.data(), {8}});
        return gf::balance_of({counts.data(), {8}}).max_violation;
    };
    const double before = imbalance();
    for (int step = 0; step < 400; ++step) {
        imbalance();
        gf::update(gf::sign_bias{0.005}, r.w.selection_bias.view(), {counts.data(), {8}});
    }
    BOOST_TEST(before > 2);
    BOOST_TEST(imbalance() < 0.15);
}

BOOST_AUTO_TEST_CASE(real_experts_get_the_share_that_is_wanted) {
    // By hand: 4 real experts and 2 that compute nothing, 12 choices, of which real ones should get 3 / 4.
    std::vector<double> bias(6, 0.0);
    const counts_type counts = {6, 3, 0, 0, 2, 1};
    gf::update(gf::pid_bias{.real = 4, .share = 0.75, .integral = 0.1}, all(bias), seen(counts));
    const std::vector<double> expected = {0.1 * (0.1875 - 0.5), 0.1 * (0.1875 - 0.25), 0.01875, 0.01875, 0, 0};
    for (std::size_t i = 0; i < 6; ++i) BOOST_TEST(std::fabs(bias[i] - expected[i]) < 1e-15);

    std::vector<double> history(12, 0.0), other(6, 0.0);
    const gf::pid_bias all_terms{.real = 4, .share = 0.75, .integral = 0.1, .proportional = 0.5, .derivative = 0.2};
    const gf::view<double, 2, gf::dyn> errors{history.data(), {2, 6}};
    double e1 = 0, e2 = 0, b = 0;
    for (gf::index_t c : {6, 3, 0, 1}) {
        gf::update(all_terms, all(other), seen({c, 3, 0, 9 - c, 0, 0}), errors);
        const double e = 0.1875 - static_cast<double>(c) / 12;
        b += 0.1 * e + 0.5 * (e - e1) + 0.2 * (e - 2 * e1 + e2);
        e2 = e1;
        e1 = e;
        BOOST_TEST(std::fabs(other[0] - b) < 1e-14);
    }
    BOOST_TEST(history[0] == e1);
    BOOST_TEST(other[4] == 0);
}

BOOST_AUTO_TEST_CASE(a_controller_resumes_with_its_bits) {
    const auto run = [](int from, int to, std::vector<double>& bias, std::vector<double>& history) {
        for (int step = from; step < to; ++step)
            gf::update(gf::pid_bias{4, 0.75, 0.01, 0.03, 0.02}, all(bias), seen({step % 7, step % 3, 5, 2, 1, 4}),
                       {history.data(), {2, 6}});
    };
    std::vector<double> bias(6, 0.0), history(12, 0.0);
    run(0, 40, bias, history);
    std::vector<double> half(6, 0.0), errors(12, 0.0);
    run(0, 17, half, errors);
    std::vector<double> resumed = half, remembered = errors;
    run(17, 40, resumed, remembered);
    BOOST_TEST(std::memcmp(resumed.data(), bias.data(), 48) == 0);
    BOOST_TEST(std::memcmp(remembered.data(), history.data(), 96) == 0);
}

BOOST_AUTO_TEST_CASE(quantiles_are_the_oracles) {
    for (const int k : {1, 2, 4}) {
        const auto z = random_logits(48, 6, static_cast<std::uint64_t>(k));
        std::vector<double> bias = {0.3, -0.1, 0, 0.2, 0.5, -0.4}, beta;
        for (double b : bias) beta.push_back(-b);
        for (int threads : {1, 3}) {
            gf::context<gf::cpu> ctx(threads);
            std::vector<double> mine = bias;
            for (int step = 0; step < 2; ++step)
                gf::update(ctx, gf::quantile_bias{k}, gf::view<double, 6>(mine.data(), {6}), {z.data(), {48, 6}});
            auto theirs = oracle::quantile_bias_update(beta, z, 48, static_cast<oracle::natural>(k));
            theirs = oracle::quantile_bias_update(theirs, z, 48, static_cast<oracle::natural>(k));
            for (std::size_t i = 0; i < 6; ++i) BOOST_TEST(mine[i] == -theirs[i]);
        }
    }
}

BOOST_AUTO_TEST_CASE(quantiles_balance_a_skewed_router) {
    auto z = random_logits(64, 8, 5);
    for (std::size_t t = 0; t < 64; ++t) z[8 * t] += 2;
    gf::context<gf::cpu> ctx(1);
    std::vector<double> bias(8, 0.0);
    for (int step = 0; step < 50; ++step)
        gf::update(ctx, gf::quantile_bias{2}, gf::view<double, 8>(bias.data(), {8}), {z.data(), {64, 8}});
    counts_type counts(8, 0);
    for (std::size_t t = 0; t < 64; ++t) {
        oracle::values keys(8);
        for (std::size_t i = 0; i < 8; ++i) keys[i] = z[8 * t + i] + bias[i];
        for (int e : oracle::top_k(keys, 2)) ++counts[static_cast<std::size_t>(e)];
    }
    BOOST_TEST(gf::balance_of(seen(counts)).max_violation < 0.15);
}

BOOST_AUTO_TEST_CASE(ties_and_broken_logits_in_quantiles) {
    const double nan = std::nan(""), inf = HUGE_VAL;
    const std::vector<double> v = {3, nan, 1, 3, -inf, inf, 2, -0.0, 0.0};
    const std::vector<double> sorted = {inf, 3, 3, 2, 1, 0, 0, -inf, -inf};
    for (int rank = 1; rank <= 9; ++rank)
        BOOST_TEST(gf::detail::nth_largest<double>(9, rank, [&](gf::index_t i) {
                       return v[static_cast<std::size_t>(i)];
                   }) == sorted[static_cast<std::size_t>(rank - 1)]);
}

BOOST_AUTO_TEST_CASE(the_coefficient_of_a_relu_router) {
    gf::relu_coefficient c{.target = 0.75, .rate = 1.2, .value = 1e-8};
    gf::update(c, 0.5);
    BOOST_TEST(c.value == 1e-8 * 1.2);
    gf::update(c, 0.75);
    BOOST_TEST(c.value == 1e-8 * 1.2);
    gf::update(c, 0.9);
    gf::update(c, 0.9);
    BOOST_TEST(std::fabs(c.value - oracle::relu_coefficient_update(1e-8, 1.2, 0.75, 0.9)) < 1e-22);
    const std::vector<double> z = {1, -1, 0, 2, std::nan(""), -3};
    BOOST_TEST(gf::sparsity_of(gf::view<const double, gf::dyn, 3>(z.data(), {2, 3})) == 4.0 / 6);
}

BOOST_AUTO_TEST_CASE(wrong_arguments_leave_the_bias_alone) {
    std::vector<double> bias = {1, 2, 3}, z(12, 0.0);
    gf::context<gf::cpu> ctx(1);
    const gf::view<double, 3> b(bias.data(), {3});
    BOOST_CHECK_THROW(gf::update(gf::sign_bias{}, b, seen({1, 2})), gf::argument_error);
    BOOST_CHECK_THROW(gf::update(gf::pid_bias{4}, b, seen({1, 2, 3})), gf::argument_error);
    BOOST_CHECK_THROW(gf::update(gf::pid_bias{2, 1, 0.1, 0.1}, b, seen({1, 2, 3})), gf::argument_error);
    BOOST_CHECK_THROW(gf::update(ctx, gf::quantile_bias{3}, b, {z.data(), {3, 3}}), gf::argument_error);
    BOOST_CHECK_THROW(gf::update(ctx, gf::quantile_bias{1}, b, {z.data(), {4, 3}}), gf::argument_error);
    gf::relu_coefficient c;
    BOOST_CHECK_THROW(gf::update(c, 1.5), gf::argument_error);
    BOOST_CHECK_THROW(gf::update(c, std::nan("")), gf::argument_error);
    BOOST_TEST(bias == (std::vector<double>{1, 2, 3}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
