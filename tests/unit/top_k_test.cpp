// ctest: heavy
// top_k: the order contract of routing (descending, ties to the lower place, NaN as -inf), any k, bad arguments.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/ops/top_k.hpp>
#include <tests/unit/tensors.hpp>

namespace {

using namespace tests;

// The definition: a stable sort of all places by descending key, cut off after k.
template <class T>
std::vector<std::int32_t> by_definition(const T* x, index_t n, index_t k) {
    std::vector<std::int32_t> places(static_cast<std::size_t>(n));
    std::iota(places.begin(), places.end(), 0);
    const auto key = [x](std::int32_t i) {
        const double v = static_cast<double>(x[i]);
        return std::isnan(v) ? -HUGE_VAL : v;
    };
    std::stable_sort(places.begin(), places.end(), [&](std::int32_t a, std::int32_t b) { return key(a) > key(b); });
    places.resize(static_cast<std::size_t>(k));
    return places;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(top_k)

using all_types = std::tuple<float, double, gatefold::bf16, gatefold::f16>;

BOOST_AUTO_TEST_CASE_TEMPLATE(equals_the_definition, T, all_types) {
    gf::context<gf::cpu> ctx(2);
    numbers next(7);
    int wrong = 0;
    for (index_t n : {1, 2, 3, 8, 31, 200})
        for (index_t k : {1, 2, 3, 8, 31, 150, 200}) {
            if (k > n) continue;
            auto x = random_tensor<T, dyn, dyn>(static_cast<std::uint64_t>(n * k), 40, n);
            // Many ties, some NaN and infinities.
            for (index_t i = 0; i < x.size(); ++i) {
                T& v = x.data()[i];
                v = static_cast<T>(std::floor(static_cast<double>(v) * 6));
                const int special = next.below(30);
                if (special == 0) v = static_cast<T>(std::nanf(""));
                if (special == 1) v = static_cast<T>(HUGE_VALF);
                if (special == 2) v = static_cast<T>(-HUGE_VALF);
                if (special == 3) v = static_cast<T>(-0.0f);
            }
            auto values = random_tensor<T, dyn, dyn>(1, 40, k);
            auto ids = zero_tensor<std::int32_t, dyn, dyn>(40, k);
            gf::top_k(ctx, x, values, ids);
            for (index_t r = 0; r < 40; ++r) {
                const auto expected = by_definition(x.view().row(r), n, k);
                for (index_t i = 0; i < k; ++i) {
                    wrong += ids(r, i) != expected[static_cast<std::size_t>(i)];
                    wrong += std::memcmp(&values(r, i), &x(r, ids(r, i)), sizeof(T)) != 0;
                }
            }
        }
    BOOST_TEST(wrong == 0);
}

BOOST_AUTO_TEST_CASE(by_hand) {
    gf::context<gf::cpu> ctx(1);
    auto x = zero_tensor<float, 6>();
    auto values = zero_tensor<float, 4>();
    auto ids = zero_tensor<std::int32_t, 4>();
    const float given[] = {1, std::nanf(""), 3, 1, -std::numeric_limits<float>::infinity(), 3};
    for (int i = 0; i < 6; ++i) x(i) = given[i];
    gf::top_k(ctx, x, values, ids);
    BOOST_TEST((ids(0) == 2 && ids(1) == 5 && ids(2) == 0 && ids(3) == 3));
    BOOST_TEST((values(0) == 3 && values(3) == 1));
    for (int i = 0; i < 6; ++i) x(i) = std::nanf("");
    gf::top_k(ctx, x, values, ids);
    for (int i = 0; i < 4; ++i) BOOST_TEST(ids(i) == i);
}

BOOST_AUTO_TEST_CASE(backward_puts_gradients_back) {
    gf::context<gf::cpu> ctx(1);
    auto ids = zero_tensor<std::int32_t, 2, 2>();
    auto g = random_tensor<float, 2, 2>(1);
    auto dx = random_tensor<float, 2, 5>(2);
    ids(0, 0) = 4, ids(0, 1) = 0, ids(1, 0) = 1, ids(1, 1) = 2;
    gf::top_k_backward(ctx, ids, g, dx);
    for (int i = 0; i < 5; ++i) {
        BOOST_TEST(dx(0, i) == (i == 4 ? g(0, 0) : i == 0 ? g(0, 1) : 0));
        BOOST_TEST(dx(1, i) == (i == 1 ? g(1, 0) : i == 2 ? g(1, 1) : 0));
    }
}

BOOST_AUTO_TEST_CASE(bad_arguments) {
    gf::context<gf::cpu> ctx(1);
    auto x = random_tensor<float, dyn, dyn>(1, 4, 6), values = random_tensor<float, dyn, dyn>(2, 4, 7);
    auto ids = zero_tensor<std::int32_t, dyn, dyn>(4, 7), short_ids = zero_tensor<std::int32_t, dyn, dyn>(3, 2);
    auto short_values = random_tensor<float, dyn, dyn>(3, 4, 2);
    check_rejects(values, [&] { gf::top_k(ctx, x, values, ids); }, {"gatefold::top_k: ids:", "no longer", "got 7"});
    check_rejects(short_values, [&] { gf::top_k(ctx, x, short_values, short_ids); }, {"top_k: ids: expected 4, got 3"});
    check_rejects(short_values, [&] { gf::top_k(ctx, x, short_values, ids); }, {"top_k: values: expected 7, got 2"});
    check_rejects(x, [&] { gf::top_k(ctx, x, gf::view<float, dyn, dyn>(x.data(), {4, 7}), ids); }, {"top_k:"});
    const gf::view<float, dyn, dyn> empty(values.data(), {4, 0});
    const gf::view<std::int32_t, dyn, dyn> no_ids(ids.data(), {4, 0});
    check_rejects(values, [&] { gf::top_k(ctx, x, empty, no_ids); }, {"top_k: ids:", "got 0"});
    auto at = zero_tensor<std::int32_t, 4, 2>();
    at(3, 1) = 6;
    check_rejects(x, [&] { gf::top_k_backward(ctx, at, short_values, x); }, {"top_k_backward: ids:", "got 6"});
    at(3, 1) = -1;
    check_rejects(x, [&] { gf::top_k_backward(ctx, at, short_values, x); }, {"top_k_backward: ids:", "got -1"});
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
