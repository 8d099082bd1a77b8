// ctest: heavy
// Embedding: rows of the table, and the deterministic gradient of the table.
#include <tuple>

#include <boost/test/unit_test.hpp>

#include <gatefold/ops/embedding.hpp>
#include <tests/unit/tensors.hpp>

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(embedding)

using namespace tests;
using all_types = std::tuple<float, double, gatefold::bf16, gatefold::f16>;

BOOST_AUTO_TEST_CASE_TEMPLATE(rows_and_their_gradient, T, all_types) {
    using A = gf::accumulate_t<T>;
    gf::context<gf::cpu> ctx(1);
    auto table = random_tensor<T, 5, 19>(1);
    auto out = random_tensor<T, 4, 19>(2), dout = random_tensor<T, 4, 19>(3);
    auto ids = zero_tensor<std::int32_t, 4>();
    ids(0) = 3, ids(1) = 0, ids(2) = 3, ids(3) = 3;
    gf::embedding(ctx, ids, table, out);
    auto sum = random_tensor<A, 5, 19>(4), more = random_tensor<A, 5, 19>(5), old = random_tensor<A, 5, 19>(5);
    gf::embedding_backward(ctx, ids, dout, sum);
    gf::embedding_backward(ctx, ids, dout, more, gf::into::accumulate);
    int wrong = 0;
    for (int c = 0; c < 19; ++c) {
        for (int t = 0; t < 4; ++t) wrong += static_cast<double>(out(t, c)) != static_cast<double>(table(ids(t), c));
        const A d0 = static_cast<A>(dout(0, c)), d1 = static_cast<A>(dout(1, c)), d2 = static_cast<A>(dout(2, c));
        const A d3 = static_cast<A>(dout(3, c));
        wrong += sum(0, c) != d1 || sum(3, c) != (d0 + d2) + d3;
        wrong += sum(1, c) != 0 || sum(2, c) != 0 || sum(4, c) != 0;
        wrong += more(1, c) != old(1, c) || more(0, c) != old(0, c) + d1;
        wrong += more(3, c) != ((old(3, c) + d0) + d2) + d3;
    }
    BOOST_TEST(wrong == 0);
}

BOOST_AUTO_TEST_CASE(no_tokens) {
    gf::context<gf::cpu> ctx(1);
    auto table = random_tensor<float, 5, 3>(1);
    const gf::view<std::int32_t, dyn> ids(nullptr, {0});
    const gf::view<float, dyn, 3> nothing(nullptr, {0, 3});
    gf::embedding(ctx, ids, table, nothing);
    gf::embedding_backward(ctx, ids, nothing, table, gf::into::accumulate);
    BOOST_TEST((same_bits(table, random_tensor<float, 5, 3>(1))));
    gf::embedding_backward(ctx, ids, nothing, table);
    BOOST_TEST((same_bits(table, zero_tensor<float, 5, 3>())));
}

BOOST_AUTO_TEST_CASE(bad_arguments) {
    gf::context<gf::cpu> ctx(1);
    auto table = random_tensor<float, dyn, dyn>(1, 5, 3), out = random_tensor<float, dyn, dyn>(2, 2, 3);
    auto ids = zero_tensor<std::int32_t, dyn>(2);
    ids(1) = 5;
    check_rejects(out, [&] { gf::embedding(ctx, ids, table, out); }, {"gatefold::embedding: ids:", "got 5"});
    check_rejects(table, [&] { gf::embedding_backward(ctx, ids, out, table); }, {"gatefold::embedding_backward: ids:"});
    ids(1) = 0;
    check_rejects(table, [&] { gf::embedding(ctx, ids, table, table); }, {"embedding: out: expected 2, got 5"});
    check_rejects(table, [&] { gf::embedding_backward(ctx, ids, table, table); },
                  {"embedding_backward: dout: expected 2"});
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
