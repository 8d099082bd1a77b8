// ctest: heavy
// Reductions of everything, of rows and of columns: values against double, NaN and ties, the promised order, bad
// arguments.
#include <cmath>
#include <limits>
#include <tuple>

#include <boost/test/unit_test.hpp>

#include <gatefold/ops/reduce.hpp>
#include <tests/unit/tensors.hpp>

namespace {

using namespace tests;

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(reduce)

using all_types = std::tuple<float, double, gatefold::bf16, gatefold::f16>;

BOOST_AUTO_TEST_CASE_TEMPLATE(values, T, all_types) {
    using A = gf::accumulate_t<T>;
    gf::context<gf::cpu> ctx(2);
    for (index_t n : {1, 5, 16, 33, 9000}) {
        auto x = random_tensor<T, 2, 3, dyn>(1, n);
        auto sums = zero_tensor<A, 2, 3>(), means = zero_tensor<A, 2, 3>(), largest = zero_tensor<A, 2, 3>();
        auto places = zero_tensor<std::int32_t, 2, 3>();
        auto columns = zero_tensor<A, dyn>(n);
        gf::row_sum(ctx, x, sums);
        gf::row_mean(ctx, x, means);
        gf::row_max(ctx, x, largest);
        gf::row_argmax(ctx, x, places);
        gf::column_sum(ctx, x, columns);
        double total = 0, best = -HUGE_VAL;
        int wrong = 0;
        for (index_t r = 0; r < 6; ++r) {
            double sum = 0, most = -HUGE_VAL;
            index_t place = 0;
            for (index_t i = 0; i < n; ++i) {
                const double v = static_cast<double>(x.view().row(r)[i]);
                sum += v;
                if (v > most) most = v, place = i;
            }
            total += sum, best = std::fmax(best, most);
            const double slack = static_cast<double>(n);
            wrong += !close<A>(static_cast<double>(sums.data()[r]), sum, slack, slack);
            wrong += !close<A>(static_cast<double>(means.data()[r]), sum / slack, slack, 1);
            wrong += static_cast<double>(largest.data()[r]) != most || places.data()[r] != place;
        }
        for (index_t i = 0; i < n; ++i) {
            double sum = 0;
            for (index_t r = 0; r < 6; ++r) sum += static_cast<double>(x.view().row(r)[i]);
            wrong += !close<A>(static_cast<double>(columns(i)), sum, 6, 6);
        }
        BOOST_TEST(wrong == 0);
        const double slack = static_cast<double>(6 * n);
        BOOST_TEST(close<A>(static_cast<double>(gf::sum(ctx, x)), total, slack, slack));
        BOOST_TEST(close<A>(static_cast<double>(gf::mean(ctx, x)), total / slack, slack, 1));
        BOOST_TEST(static_cast<double>(gf::max(ctx, x)) == best);
        const index_t place = gf::argmax(ctx, x);
        BOOST_TEST(static_cast<double>(x.data()[place]) == best);
        for (index_t i = 0; i < place; ++i)
            if (static_cast<double>(x.data()[i]) == best) BOOST_ERROR("argmax is not the first");
    }
}

BOOST_AUTO_TEST_CASE(a_nan_is_never_the_largest_and_the_first_of_equals_is) {
    gf::context<gf::cpu> ctx(1);
    auto x = zero_tensor<float, 2, 5>();
    auto place = zero_tensor<std::int32_t, 2>();
    auto most = zero_tensor<float, 2>();
    const float nan = std::nanf(""), infinity = std::numeric_limits<float>::infinity();
    x(0, 0) = nan, x(0, 1) = -2, x(0, 2) = 3, x(0, 3) = 3, x(0, 4) = nan;
    for (int i = 0; i < 5; ++i) x(1, i) = i == 1 ? -infinity : nan;
    gf::row_argmax(ctx, x, place);
    gf::row_max(ctx, x, most);
    BOOST_TEST((place(0) == 2 && place(1) == 0));
    BOOST_TEST((most(0) == 3 && most(1) == -infinity));
    BOOST_TEST(gf::argmax(ctx, x) == 2);
    BOOST_TEST(gf::max(ctx, x) == 3);
    x(1, 4) = infinity;
    BOOST_TEST(gf::argmax(ctx, x) == 9);
    BOOST_TEST(std::isnan(gf::sum(ctx, x)));
}

BOOST_AUTO_TEST_CASE(sums_in_lanes_blocks_and_chains) {
    gf::context<gf::cpu> ctx(1);
    auto x = random_tensor<float, 2, 5000>(1);
    const auto lanes = [](const float* v, int n) {
        float lane[16] = {};
        for (int i = 0; i < n; ++i) lane[i % 16] += v[i];
        for (int half = 8; half > 0; half /= 2)
            for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
        return lane[0];
    };
    auto sums = zero_tensor<float, 2>();
    gf::row_sum(ctx, x, sums);
    BOOST_TEST(sums(1) == lanes(&x(1, 0), 5000));
    const float blocks[4] = {lanes(&x(0, 0), 4096), lanes(&x(0, 4096), 904), lanes(&x(1, 0), 4096),
                             lanes(&x(1, 4096), 904)};
    BOOST_TEST(gf::sum(ctx, x) == lanes(blocks, 4));
    auto tall = random_tensor<float, 300, 3>(2);
    auto columns = zero_tensor<float, 3>();
    gf::column_sum(ctx, tall, columns);
    gf::column_sum(ctx, tall, columns, gf::into::accumulate);
    for (int c = 0; c < 3; ++c) {
        float chain = 0;
        for (int twice = 0; twice < 2; ++twice)
            for (int r = 0; r < 300; ++r) chain += tall(r, c);
        BOOST_TEST(columns(c) == chain);
    }
}

BOOST_AUTO_TEST_CASE(same_bits_for_any_threads) {
    auto x = random_tensor<float, dyn, 1000>(1, 130);
    auto expected = zero_tensor<float, 1000>();
    gf::context<gf::cpu> one(1);
    gf::column_sum(one, x, expected);
    const float total = gf::sum(one, x);
    for (int threads : {2, 3, 9}) {
        auto ctx = backwards(threads);
        auto columns = random_tensor<float, 1000>(2);
        gf::column_sum(ctx, x, columns);
        BOOST_TEST((same_bits(columns, expected)));
        BOOST_TEST(gf::sum(ctx, x) == total);
    }
}

BOOST_AUTO_TEST_CASE(backward_spreads_gradients) {
    gf::context<gf::cpu> ctx(1);
    auto dx = random_tensor<float, 2, 4>(1);
    auto g = zero_tensor<float, 2>();
    auto along = random_tensor<float, 4>(2);
    auto places = zero_tensor<std::int32_t, 2>();
    g(0) = 3, g(1) = -8, places(0) = 2, places(1) = 0;
    gf::row_sum_backward(ctx, g, dx);
    BOOST_TEST((dx(0, 3) == 3 && dx(1, 0) == -8));
    gf::row_mean_backward(ctx, g, dx);
    BOOST_TEST((dx(0, 0) == 0.75f && dx(1, 3) == -2));
    gf::row_max_backward(ctx, places, g, dx);
    for (int i = 0; i < 4; ++i) BOOST_TEST((dx(0, i) == (i == 2 ? 3 : 0) && dx(1, i) == (i == 0 ? -8 : 0)));
    gf::column_sum_backward(ctx, along, dx);
    for (int i = 0; i < 4; ++i) BOOST_TEST((dx(0, i) == along(i) && dx(1, i) == along(i)));
}

BOOST_AUTO_TEST_CASE(empty_input) {
    gf::context<gf::cpu> ctx(1);
    const gf::view<float, dyn, 4> none(nullptr, {0, 4});
    const gf::view<float, dyn> nothing(nullptr, {0});
    BOOST_TEST(gf::sum(ctx, none) == 0);
    gf::row_sum(ctx, none, nothing);
    auto out = random_tensor<float, 4>(1);
    gf::column_sum(ctx, none, out);
    BOOST_TEST((out(0) == 0 && out(3) == 0));
}

BOOST_AUTO_TEST_CASE(bad_arguments) {
    gf::context<gf::cpu> ctx(1);
    auto x = random_tensor<float, dyn, dyn>(1, 4, 6);
    auto out = random_tensor<float, dyn>(2, 5);
    auto places = zero_tensor<std::int32_t, dyn>(4);
    const gf::view<float, dyn, dyn> none(nullptr, {0, 0}), empty_rows(x.data(), {4, 0});
    check_rejects(out, [&] { gf::row_sum(ctx, x, out); }, {"gatefold::row_sum: out: expected 4, got 5"});
    check_rejects(out, [&] { gf::column_sum(ctx, x, out); }, {"gatefold::column_sum: out: expected 6, got 5"});
    check_rejects(out, [&] { gf::mean(ctx, none); }, {"gatefold::mean: x:"});
    check_rejects(out, [&] { gf::max(ctx, none); }, {"gatefold::max: x:"});
    check_rejects(out, [&] { gf::argmax(ctx, none); }, {"gatefold::argmax: x:"});
    check_rejects(out, [&] { gf::row_max(ctx, empty_rows, gf::view<float, dyn>(out.data(), {4})); }, {"row_max: x:"});
    check_rejects(places, [&] { gf::row_argmax(ctx, empty_rows, places); }, {"row_argmax: x:"});
    check_rejects(x, [&] { gf::row_sum(ctx, x, gf::view<float, dyn>(x.data(), {4})); }, {"row_sum: out:", "overlap"});
    places(2) = 6;
    check_rejects(x, [&] { gf::row_max_backward(ctx, places, gf::view<float, dyn>(out.data(), {4}), x); },
                  {"row_max_backward: places:", "got 6"});
    check_rejects(x, [&] { gf::row_mean_backward(ctx, out, x); }, {"row_mean_backward: dout: expected 4"});
    check_rejects(x, [&] { gf::column_sum_backward(ctx, out, x); }, {"column_sum_backward: dout: expected 6"});
    check_rejects(x, [&] { gf::row_sum_backward(ctx, gf::view<float, dyn>(nullptr, {4}), x); }, {"dout:", "null"});
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
