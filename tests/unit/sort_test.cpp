// ctest: heavy
// Stable sorts of places: equal to the standard library's, for every kind of key, and counting sort with its offsets.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <tuple>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/ops/sort.hpp>
#include <tests/unit/tensors.hpp>

namespace {

using namespace tests;
using gf::sort_order;

template <class Keys, class Before>
std::vector<std::int32_t> standard(const Keys& keys, Before before) {
    std::vector<std::int32_t> order(static_cast<std::size_t>(keys.size()));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::int32_t a, std::int32_t b) { return before(keys(a), keys(b)); });
    return order;
}

template <class Order>
bool equal(const Order& order, const std::vector<std::int32_t>& expected) {
    return std::equal(expected.begin(), expected.end(), order.data(), order.data() + order.size());
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(sort)

using key_types = std::tuple<float, double, gatefold::bf16, std::int32_t, std::int64_t, std::uint8_t>;

BOOST_AUTO_TEST_CASE_TEMPLATE(equals_the_standard_library, K, key_types) {
    gf::context<gf::cpu> ctx(2);
    for (index_t n : {0, 1, 2, 15, 16, 17, 32, 33, 100, 1000, 4097}) {
        auto keys = zero_tensor<K, dyn>(n);
        auto order = zero_tensor<std::int32_t, dyn>(n);
        numbers next(static_cast<std::uint64_t>(n));
        for (index_t i = 0; i < n; ++i) keys(i) = static_cast<K>(next.below(60));
        gf::stable_sort(ctx, keys, order);
        BOOST_TEST(equal(order, standard(keys, [](K a, K b) { return a < b; })));
        gf::stable_sort<sort_order::descending>(ctx, keys, order);
        BOOST_TEST(equal(order, standard(keys, [](K a, K b) { return a > b; })));
    }
}

BOOST_AUTO_TEST_CASE(a_nan_comes_last) {
    gf::context<gf::cpu> ctx(1);
    auto keys = zero_tensor<float, 5>();
    auto order = zero_tensor<std::int32_t, 5>();
    keys(0) = std::nanf(""), keys(1) = 2, keys(2) = HUGE_VALF, keys(3) = std::nanf(""), keys(4) = -1;
    gf::stable_sort(ctx, keys, order);
    BOOST_TEST(equal(order, {4, 1, 0, 2, 3}));  // a NaN ties with +inf
    keys(2) = -HUGE_VALF;
    gf::stable_sort<sort_order::descending>(ctx, keys, order);
    BOOST_TEST(equal(order, {1, 4, 0, 2, 3}));
}

BOOST_AUTO_TEST_CASE(counting_sort_groups_by_key) {
    gf::context<gf::cpu> ctx(1);
    for (index_t n : {0, 1, 37, 1000}) {
        auto keys = zero_tensor<std::int32_t, dyn>(n), order = zero_tensor<std::int32_t, dyn>(n);
        auto begins = zero_tensor<std::int32_t, 13>();
        numbers next(static_cast<std::uint64_t>(n));
        for (index_t i = 0; i < n; ++i) keys(i) = next.below(11);  // key 11 has no element
        gf::counting_sort(ctx, keys, order, begins);
        BOOST_TEST(equal(order, standard(keys, [](int a, int b) { return a < b; })));
        BOOST_TEST((begins(0) == 0 && begins(12) == n && begins(11) == n));
        for (int k = 0; k < 12; ++k)
            for (std::int32_t i = begins(k); i < begins(k + 1); ++i) BOOST_TEST(keys(order(i)) == k);
    }
}

BOOST_AUTO_TEST_CASE(bad_arguments) {
    gf::context<gf::cpu> ctx(1);
    auto keys = zero_tensor<std::int32_t, dyn>(5), order = zero_tensor<std::int32_t, dyn>(5);
    auto wrong = zero_tensor<std::int32_t, dyn>(4), offsets = zero_tensor<std::int32_t, dyn>(4);
    const gf::view<std::int32_t, dyn> none(nullptr, {5}), no_offsets(offsets.data(), {0});
    check_rejects(wrong, [&] { gf::stable_sort(ctx, keys, wrong); },
                  {"gatefold::stable_sort: order: expected 5, got 4"});
    check_rejects(order, [&] { gf::stable_sort(ctx, none, order); }, {"stable_sort: keys:", "null"});
    check_rejects(keys, [&] { gf::stable_sort(ctx, keys, keys); }, {"stable_sort: order:", "overlap"});
    keys(4) = 3;
    check_rejects(order, [&] { gf::counting_sort(ctx, keys, order, offsets); }, {"counting_sort: keys:", "got 3"});
    keys(4) = -1;
    check_rejects(order, [&] { gf::counting_sort(ctx, keys, order, offsets); }, {"counting_sort: keys:", "got -1"});
    keys(4) = 0;
    check_rejects(wrong, [&] { gf::counting_sort(ctx, keys, wrong, offsets); }, {"counting_sort: order: expected 5"});
    check_rejects(order, [&] { gf::counting_sort(ctx, keys, order, no_offsets); },
                  {"counting_sort: offsets:", "got 0"});
    check_rejects(order, [&] { gf::counting_sort(ctx, keys, order, order); }, {"counting_sort: offsets:", "overlap"});
    gf::context<gf::cpu> fixed(1);
    fixed.fix_workspace();
    check_rejects(order, [&] { gf::stable_sort(fixed, keys, order); }, {"context::workspace"});
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
