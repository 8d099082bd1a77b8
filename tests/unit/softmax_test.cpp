// ctest: heavy
// Softmax and log-softmax: values against double, extreme rows, the promised order, bad arguments.
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/ops/softmax.hpp>
#include <tests/unit/tensors.hpp>

namespace {

using namespace tests;

template <class Row>
std::vector<double> reference(const Row* x, index_t n) {
    double largest = -HUGE_VAL, sum = 0;
    for (index_t i = 0; i < n; ++i) largest = std::fmax(largest, static_cast<double>(x[i]));
    std::vector<double> p(static_cast<std::size_t>(n));
    for (index_t i = 0; i < n; ++i)
        sum += p[static_cast<std::size_t>(i)] = std::exp(static_cast<double>(x[i]) - largest);
    for (double& v : p) v /= sum;
    return p;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(softmax)

using all_types = std::tuple<float, double, gatefold::bf16, gatefold::f16>;

BOOST_AUTO_TEST_CASE_TEMPLATE(values, T, all_types) {
    gf::context<gf::cpu> ctx(2);
    for (index_t n : {1, 2, 15, 16, 17, 100}) {
        auto x = random_tensor<T, dyn, dyn>(1, 6, n), p = random_tensor<T, dyn, dyn>(2, 6, n);
        auto logs = random_tensor<T, dyn, dyn>(3, 6, n);
        randomise(x.view(), 4, 6);
        gf::softmax(ctx, x, p);
        gf::log_softmax(ctx, x, logs);
        int wrong = 0;
        for (index_t r = 0; r < 6; ++r) {
            const auto expected = reference(x.view().row(r), n);
            for (index_t i = 0; i < n; ++i) {
                const double e = expected[static_cast<std::size_t>(i)];
                wrong += !close<T>(static_cast<double>(p(r, i)), e, 8, 1e-3);
                wrong += !close<T>(static_cast<double>(logs(r, i)), std::log(e), 4, 4);
            }
        }
        BOOST_TEST(wrong == 0);
        gf::softmax(ctx, x, x);
        BOOST_TEST((same_bits(x, p)));
    }
}

BOOST_AUTO_TEST_CASE(small_numbers_by_hand) {
    gf::context<gf::cpu> ctx(1);
    auto x = zero_tensor<float, 4>(), y = zero_tensor<float, 4>();
    gf::softmax(ctx, x, y);
    for (int i = 0; i < 4; ++i) BOOST_TEST(y(i) == 0.25f);
    x(1) = std::log(3.0f);
    gf::softmax(ctx, x, y);
    BOOST_TEST(y(1) == 0.5f);
    gf::log_softmax(ctx, zero_tensor<float, 4>(), y);
    BOOST_TEST(y(2) == -std::log(4.0f));
}

BOOST_AUTO_TEST_CASE(extreme_rows) {
    gf::context<gf::cpu> ctx(1);
    const float infinity = std::numeric_limits<float>::infinity();
    auto x = zero_tensor<float, 3>(), y = zero_tensor<float, 3>();
    x(0) = 3e38f, x(1) = -3e38f, x(2) = 3e38f;
    gf::softmax(ctx, x, y);
    BOOST_TEST((y(0) == 0.5f && y(1) == 0.0f && y(2) == 0.5f));
    x(0) = -infinity, x(1) = 7, x(2) = -infinity;
    gf::softmax(ctx, x, y);
    BOOST_TEST((y(0) == 0.0f && y(1) == 1.0f && y(2) == 0.0f));
    gf::log_softmax(ctx, x, y);
    BOOST_TEST((y(0) == -infinity && y(1) == 0.0f));
    x(1) = -infinity;
    gf::softmax(ctx, x, y);
    BOOST_TEST((std::isnan(y(0)) && std::isnan(y(1)) && std::isnan(y(2))));
    x(0) = 0, x(1) = std::nanf(""), x(2) = 1;
    gf::softmax(ctx, x, y);
    BOOST_TEST((std::isnan(y(0)) && std::isnan(y(1)) && std::isnan(y(2))));
}

BOOST_AUTO_TEST_CASE(sums_in_sixteen_lanes) {
    gf::context<gf::cpu> ctx(1);
    auto dy = random_tensor<float, 70>(1), y = zero_tensor<float, 70>(), dx = zero_tensor<float, 70>();
    for (int i = 0; i < 70; ++i) y(i) = 1;
    gf::softmax_backward(ctx, y, dy, dx);
    float lane[16] = {};
    for (int i = 0; i < 70; ++i) lane[i % 16] += dy(i);
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; ++l) lane[l] = lane[l] + lane[l + half];
    float chain = 0;
    for (int i = 0; i < 70; ++i) chain += dy(i);
    BOOST_TEST(dx(1) == dy(1) - lane[0]);
    BOOST_TEST(lane[0] != chain);
}

BOOST_AUTO_TEST_CASE(same_bits_for_any_threads) {
    auto x = random_tensor<bf16, dyn, 333>(1, 64), expected = random_tensor<bf16, dyn, 333>(2, 64);
    auto gradient = random_tensor<bf16, dyn, 333>(3, 64), dx = random_tensor<bf16, dyn, 333>(3, 64);
    gf::context<gf::cpu> one(1);
    gf::softmax(one, x, expected);
    gf::softmax_backward(one, expected, gradient, dx);
    for (int threads : {2, 5, 64}) {
        auto ctx = backwards(threads);
        auto y = random_tensor<bf16, dyn, 333>(2, 64), dy = random_tensor<bf16, dyn, 333>(3, 64);
        gf::softmax(ctx, x, y);
        gf::softmax_backward(ctx, y, dy, dy);
        BOOST_TEST((same_bits(y, expected) && same_bits(dy, dx)));
    }
}

BOOST_AUTO_TEST_CASE(bad_arguments) {
    gf::context<gf::cpu> ctx(1);
    auto x = random_tensor<float, dyn, dyn>(1, 4, 6), out = random_tensor<float, dyn, dyn>(2, 4, 7);
    auto same = random_tensor<float, dyn, dyn>(3, 4, 6);
    using rows = gf::view<float, dyn, dyn>;
    check_rejects(out, [&] { gf::softmax(ctx, x, out); }, {"gatefold::softmax: out: expected 6, got 7"});
    check_rejects(out, [&] { gf::log_softmax(ctx, x, out); }, {"gatefold::log_softmax: out: expected 6, got 7"});
    check_rejects(out, [&] { gf::softmax_backward(ctx, x, x, out); }, {"softmax_backward: dx: expected 6, got 7"});
    check_rejects(out, [&] { gf::log_softmax_backward(ctx, x, out, x); }, {"log_softmax_backward: dy: expected 6"});
    check_rejects(same, [&] { gf::softmax(ctx, rows(nullptr, {4, 6}), same); }, {"softmax: x:", "null"});
    check_rejects(same, [&] { gf::softmax(ctx, x, rows(nullptr, {4, 6})); }, {"softmax: out:", "null"});
    check_rejects(x,
                  [&] {
                      gf::softmax(ctx, rows(x.data(), {2, 6}), rows(x.data() + 6, {2, 6}));
                  },
                  {"softmax: out:", "partial overlap"});
    const rows nothing(nullptr, {0, 6});
    gf::softmax(ctx, nothing, nothing);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
