// ctest: heavy
// Cross entropy: the loss and its gradient against double, ignored targets, extreme logits, bad arguments.
#include <cmath>
#include <tuple>

#include <boost/test/unit_test.hpp>

#include <gatefold/ops/cross_entropy.hpp>
#include <tests/unit/tensors.hpp>

namespace {

using namespace tests;

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(cross_entropy)

using all_types = std::tuple<float, double, gatefold::bf16, gatefold::f16>;

BOOST_AUTO_TEST_CASE_TEMPLATE(values, T, all_types) {
    using A = gf::accumulate_t<T>;
    gf::context<gf::cpu> ctx(2);
    for (index_t n : {1, 2, 17, 256}) {
        auto logits = random_tensor<T, dyn, dyn>(1, 7, n), gradient = random_tensor<T, dyn, dyn>(2, 7, n);
        randomise(logits.view(), 3, 4);
        auto targets = zero_tensor<std::int32_t, dyn>(7);
        numbers next(4);
        for (int t = 0; t < 7; ++t)
            targets(t) = t == 2 || t == 5 ? gf::ignored_target : next.below(static_cast<int>(n));
        double loss = 0;
        for (int t = 0; t < 7; ++t) {
            double sum = 0;
            for (index_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(logits(t, i)));
            if (targets(t) >= 0) loss += std::log(sum) - static_cast<double>(logits(t, targets(t)));
        }
        loss /= 5;
        const auto alone = gf::cross_entropy(ctx, logits, targets);
        const auto fused = gf::cross_entropy(ctx, logits, targets, gradient, gf::ignored_target, 0.5);
        BOOST_TEST(close<A>(static_cast<double>(alone.loss), loss, 16, 8));
        BOOST_TEST((alone.loss == fused.loss && alone.tokens == 5 && fused.tokens == 5));
        int wrong = 0;
        for (int t = 0; t < 7; ++t) {
            double sum = 0;
            for (index_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(logits(t, i)));
            for (index_t i = 0; i < n; ++i) {
                const double p = std::exp(static_cast<double>(logits(t, i))) / sum;
                const double expected = targets(t) < 0 ? 0 : 0.5 / 5 * (p - (i == targets(t) ? 1 : 0));
                wrong += !close<T>(static_cast<double>(gradient(t, i)), expected, 4, 1e-2);
                wrong += targets(t) < 0 && static_cast<double>(gradient(t, i)) != 0;
            }
        }
        BOOST_TEST(wrong == 0);
        // In place over the logits.
        gf::cross_entropy(ctx, logits, targets, logits, gf::ignored_target, 0.5);
        BOOST_TEST((same_bits(logits, gradient)));
    }
}

BOOST_AUTO_TEST_CASE(by_hand) {
    gf::context<gf::cpu> ctx(1);
    auto logits = zero_tensor<float, 2, 4>(), gradient = random_tensor<float, 2, 4>(1);
    auto targets = zero_tensor<std::int32_t, 2>();
    targets(0) = 3;
    const auto result = gf::cross_entropy(ctx, logits, targets, gradient);
    BOOST_TEST(result.loss == std::log(4.0f));
    for (int t = 0; t < 2; ++t)
        for (int i = 0; i < 4; ++i) BOOST_TEST(gradient(t, i) == (i == targets(t) ? -0.375f : 0.125f));
    // Logits far apart neither overflow nor turn a certain answer into a NaN.
    logits(0, 3) = 3e38f, logits(1, 0) = -3e38f;
    const auto extreme = gf::cross_entropy(ctx, logits, targets, gradient);
    BOOST_TEST(extreme.loss == 1.5e38f);
    BOOST_TEST((gradient(0, 3) == 0 && gradient(1, 0) == -0.5f));
}

BOOST_AUTO_TEST_CASE(nothing_counts) {
    gf::context<gf::cpu> ctx(1);
    auto logits = random_tensor<float, 2, 4>(1), gradient = random_tensor<float, 2, 4>(2);
    auto targets = zero_tensor<std::int32_t, 2>();
    targets(0) = targets(1) = 7;
    const auto masked = gf::cross_entropy(ctx, logits, targets, gradient, 7);
    BOOST_TEST((masked.loss == 0 && masked.tokens == 0));
    BOOST_TEST((same_bits(gradient, zero_tensor<float, 2, 4>())));
    const gf::view<float, dyn, 4> none(nullptr, {0, 4});
    const gf::view<std::int32_t, dyn> no_targets(nullptr, {0});
    const auto empty = gf::cross_entropy(ctx, none, no_targets, none);
    BOOST_TEST((empty.loss == 0 && empty.tokens == 0));
}

BOOST_AUTO_TEST_CASE(same_bits_for_any_threads) {
    auto logits = random_tensor<float, dyn, 300>(1, 100), expected = random_tensor<float, dyn, 300>(2, 100);
    auto targets = zero_tensor<std::int32_t, dyn>(100);
    numbers next(3);
    for (int t = 0; t < 100; ++t) targets(t) = next.below(300);
    gf::context<gf::cpu> one(1);
    const auto loss = gf::cross_entropy(one, logits, targets, expected);
    for (int threads : {2, 3, 30}) {
        auto ctx = backwards(threads);
        auto gradient = random_tensor<float, dyn, 300>(4, 100);
        BOOST_TEST(gf::cross_entropy(ctx, logits, targets, gradient).loss == loss.loss);
        BOOST_TEST((same_bits(gradient, expected)));
    }
}

BOOST_AUTO_TEST_CASE(bad_arguments) {
    gf::context<gf::cpu> ctx(1);
    auto logits = random_tensor<float, dyn, dyn>(1, 3, 4), gradient = random_tensor<float, dyn, dyn>(2, 3, 4);
    auto other = random_tensor<float, dyn, dyn>(3, 3, 5);
    auto targets = zero_tensor<std::int32_t, dyn>(3), two = zero_tensor<std::int32_t, dyn>(2);
    check_rejects(gradient, [&] { gf::cross_entropy(ctx, logits, two, gradient); },
                  {"gatefold::cross_entropy: targets: expected 3, got 2"});
    check_rejects(other, [&] { gf::cross_entropy(ctx, logits, targets, other); }, {"dlogits: expected 4, got 5"});
    check_rejects(gradient,
                  [&] {
                      gf::cross_entropy(ctx, gf::view<float, dyn, dyn>(nullptr, {3, 4}), targets, gradient);
                  },
                  {"cross_entropy: logits:", "null"});
    for (std::int32_t wrong : {4, -1, -99}) {
        targets(2) = wrong;
        check_rejects(gradient, [&] { gf::cross_entropy(ctx, logits, targets, gradient); },
                      {"cross_entropy: targets:", "got " + std::to_string(wrong)});
    }
    targets(2) = 0;
    gf::context<gf::cpu> fixed(1);
    fixed.fix_workspace();
    check_rejects(gradient, [&] { gf::cross_entropy(fixed, logits, targets, gradient); }, {"context::workspace"});
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
