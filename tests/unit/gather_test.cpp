// gather and scatter_add: rows by index and back, in the order of the indices, rounded once.
#include <tuple>

#include <boost/test/unit_test.hpp>

#include <gatefold/ops/gather.hpp>
#include <tests/unit/tensors.hpp>

namespace {

using namespace tests;
using gf::into;

gf::tensor<std::int32_t, dyn> random_ids(index_t n, int below, std::uint64_t seed) {
    auto ids = zero_tensor<std::int32_t, dyn>(n);
    numbers next(seed);
    for (index_t i = 0; i < n; ++i) ids(i) = next.below(below);
    return ids;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(gather)

using all_types = std::tuple<float, double, gatefold::bf16, gatefold::f16>;

BOOST_AUTO_TEST_CASE_TEMPLATE(rows_out_and_back, T, all_types) {
    using A = gf::accumulate_t<T>;
    gf::context<gf::cpu> ctx(2);
    auto table = random_tensor<T, 9, 37>(1), sums = random_tensor<T, 9, 37>(2), added = random_tensor<T, 9, 37>(2);
    auto old = random_tensor<T, 9, 37>(2);
    auto ids = random_ids(50, 8, 3);  // row 8 is never picked
    auto rows = random_tensor<T, dyn, 37>(4, 50), picked = random_tensor<T, dyn, 37>(5, 50);
    gf::gather(ctx, table, ids, picked);
    gf::scatter_add(ctx, rows, ids, sums);
    gf::scatter_add(ctx, rows, ids, added, into::accumulate);
    int wrong = 0;
    for (index_t i = 0; i < 50; ++i)
        for (index_t c = 0; c < 37; ++c)
            wrong += static_cast<double>(picked(i, c)) != static_cast<double>(table(ids(i), c));
    for (int v = 0; v < 9; ++v)
        for (int c = 0; c < 37; ++c) {
            A fresh = 0, more = static_cast<A>(old(v, c));
            for (index_t i = 0; i < 50; ++i)
                if (ids(i) == v) fresh += static_cast<A>(rows(i, c)), more += static_cast<A>(rows(i, c));
            wrong += static_cast<double>(sums(v, c)) != static_cast<double>(static_cast<T>(fresh));
            wrong += static_cast<double>(added(v, c)) != static_cast<double>(static_cast<T>(more));
        }
    BOOST_TEST(wrong == 0);
}

BOOST_AUTO_TEST_CASE(sums_are_rounded_once) {
    // 257 ones: bf16 holds 256, and adding ones to it one by one would stay there.
    gf::context<gf::cpu> ctx(1);
    auto rows = zero_tensor<bf16, dyn, 1>(258);
    for (int i = 0; i < 258; ++i) rows(i, 0) = bf16(1);
    auto ids = zero_tensor<std::int32_t, dyn>(258);
    auto sum = zero_tensor<bf16, 1, 1>();
    gf::scatter_add(ctx, rows, ids, sum);
    BOOST_TEST(static_cast<float>(sum(0, 0)) == 258);
}

BOOST_AUTO_TEST_CASE(same_bits_for_any_threads) {
    auto rows = random_tensor<float, dyn, 64>(1, 3000);
    auto ids = random_ids(3000, 40, 2);
    auto expected = random_tensor<float, 40, 64>(3);
    gf::context<gf::cpu> one(1);
    gf::scatter_add(one, rows, ids, expected);
    for (int threads : {2, 3, 50}) {
        auto ctx = backwards(threads);
        auto sums = random_tensor<float, 40, 64>(4);
        gf::scatter_add(ctx, rows, ids, sums);
        BOOST_TEST((same_bits(sums, expected)));
    }
}

BOOST_AUTO_TEST_CASE(types_may_differ_and_rows_may_be_strided) {
    gf::context<gf::cpu> ctx(1);
    auto table = random_tensor<bf16, 6, 10>(1);
    auto wide = random_tensor<float, 4, 12>(2), before = random_tensor<float, 4, 12>(2);
    const gf::view<const bf16, 6, 3> columns(table.data() + 2, {6, 3}, 10);
    const gf::view<float, 4, 3> to(wide.data() + 5, {4, 3}, 12);
    auto ids = random_ids(4, 6, 3);
    gf::gather(ctx, columns, ids, to);
    for (int r = 0; r < 4; ++r)
        for (int c = 0; c < 12; ++c)
            BOOST_TEST(wide(r, c) == (c >= 5 && c < 8 ? static_cast<float>(table(ids(r), c - 3)) : before(r, c)));
}

BOOST_AUTO_TEST_CASE(bad_arguments) {
    gf::context<gf::cpu> ctx(1);
    auto table = random_tensor<float, dyn, dyn>(1, 6, 5), out = random_tensor<float, dyn, dyn>(2, 4, 5);
    auto narrow = random_tensor<float, dyn, dyn>(3, 4, 4);
    auto ids = random_ids(4, 6, 4);
    const gf::view<std::int32_t, dyn> none(nullptr, {4}), three(ids.data(), {3});
    check_rejects(narrow, [&] { gf::gather(ctx, table, ids, narrow); }, {"gatefold::gather: out: expected 5, got 4"});
    check_rejects(out, [&] { gf::gather(ctx, table, three, out); }, {"gather: out: expected 3, got 4"});
    check_rejects(out, [&] { gf::gather(ctx, table, none, out); }, {"gather: ids:", "null"});
    check_rejects(table, [&] { gf::gather(ctx, table, ids, table.view().slice(0, 4)); }, {"gather: out:", "overlap"});
    ids(3) = 6;
    check_rejects(out, [&] { gf::gather(ctx, table, ids, out); }, {"gather: ids:", "got 6"});
    check_rejects(table, [&] { gf::scatter_add(ctx, out, ids, table); }, {"gatefold::scatter_add: ids:", "got 6"});
    ids(3) = -1;
    check_rejects(out, [&] { gf::gather(ctx, table, ids, out); }, {"gather: ids:", "got -1"});
    check_rejects(table, [&] { gf::scatter_add(ctx, out, ids, table); }, {"scatter_add: ids:", "got -1"});
    ids(3) = 0;
    check_rejects(table, [&] { gf::scatter_add(ctx, narrow, ids, table); }, {"scatter_add: rows: expected 5, got 4"});
    check_rejects(table, [&] { gf::scatter_add(ctx, out, three, table); }, {"scatter_add: rows: expected 3, got 4"});
    gf::context<gf::cpu> fixed(1);
    fixed.fix_workspace();
    check_rejects(table, [&] { gf::scatter_add(fixed, out, ids, table); }, {"context::workspace"});
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
