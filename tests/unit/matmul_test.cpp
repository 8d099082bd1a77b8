// Matrix products: every transposition and type against double sums, the promised order to the bit, strided rows, bad
// arguments.
#include <cmath>
#include <tuple>
#include <type_traits>

#include <boost/test/unit_test.hpp>

#include <gatefold/ops/matmul.hpp>
#include <tests/unit/tensors.hpp>

namespace {

using namespace tests;
using gf::into;
using gf::matmul;
using gf::matmul_backward;
using gf::transpose;

constexpr bool transposes_a(transpose t) { return t == transpose::a || t == transpose::both; }
constexpr bool transposes_b(transpose t) { return t == transpose::b || t == transpose::both; }

template <class M>
double at(const M& m, bool turned, index_t i, index_t j) {
    return static_cast<double>(turned ? m(j, i) : m(i, j));
}

template <transpose Op, class A, class B, class Out>
void check_product(index_t m, index_t k, index_t n) {
    constexpr bool ta = transposes_a(Op), tb = transposes_b(Op);
    auto a = random_tensor<A, dyn, dyn>(1, ta ? k : m, ta ? m : k);
    auto b = random_tensor<B, dyn, dyn>(2, tb ? n : k, tb ? k : n);
    auto out = random_tensor<Out, dyn, dyn>(3, m, n);
    auto old = random_tensor<Out, dyn, dyn>(3, m, n), sum = random_tensor<Out, dyn, dyn>(3, m, n);
    gf::context<gf::cpu> ctx(2);
    matmul<Op>(ctx, a, b, out);
    matmul<Op>(ctx, a, b, sum, into::accumulate);
    int wrong = 0;
    using T = std::conditional_t<std::is_same_v<A, double>, double, float>;
    for (index_t i = 0; i < m; ++i)
        for (index_t j = 0; j < n; ++j) {
            double expected = 0, magnitude = 1;
            for (index_t l = 0; l < k; ++l) {
                const double term = at(a, ta, i, l) * at(b, tb, l, j);
                expected += term;
                magnitude += std::fabs(term);
            }
            const double slack = magnitude * static_cast<double>(k + 2) * rounding<T>;
            const double start = static_cast<double>(old(i, j));
            wrong += std::fabs(static_cast<double>(out(i, j)) - expected) > slack + rounding<Out> * std::fabs(expected);
            wrong += std::fabs(static_cast<double>(sum(i, j)) - expected - start) >
                     slack + rounding<Out> * std::fabs(expected + start);
        }
    BOOST_TEST(wrong == 0);
}

template <class A, class B, class Out>
void check_all_products(index_t m, index_t k, index_t n) {
    check_product<transpose::none, A, B, Out>(m, k, n);
    check_product<transpose::a, A, B, Out>(m, k, n);
    check_product<transpose::b, A, B, Out>(m, k, n);
    check_product<transpose::both, A, B, Out>(m, k, n);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(matmul)

using all_types = std::tuple<float, double, gatefold::bf16, gatefold::f16>;

BOOST_AUTO_TEST_CASE_TEMPLATE(equals_double_sums, T, all_types) {
    check_all_products<T, T, T>(13, 29, 37);
    check_all_products<T, T, T>(1, 1, 1);
    check_all_products<T, T, T>(1, 67, 3);
    check_all_products<T, T, T>(5, 0, 7);
}

BOOST_AUTO_TEST_CASE(types_may_differ) {
    check_all_products<bf16, bf16, float>(7, 31, 9);
    check_product<transpose::b, float, bf16, f16>(7, 31, 9);
    check_product<transpose::none, f16, float, bf16>(7, 31, 9);
}

BOOST_AUTO_TEST_CASE(zero_depth_gives_zeros) {
    gf::context<gf::cpu> ctx(1);
    auto a = zero_tensor<float, 3, 0>();
    auto b = zero_tensor<float, 0, 3>();
    auto out = random_tensor<float, 3, 3>(1);
    gf::matmul(ctx, a, b, out, into::accumulate);
    BOOST_TEST((same_bits(out, random_tensor<float, 3, 3>(1))));
    gf::matmul(ctx, a, b, out);
    BOOST_TEST((same_bits(out, zero_tensor<float, 3, 3>())));
}

#if GATEFOLD_HARDWARE_FMA
BOOST_AUTO_TEST_CASE(one_ascending_chain_of_fused_multiply_adds) {
    gf::context<gf::cpu> ctx(2);
    auto a = random_tensor<float, 11, 700>(4);
    auto b = random_tensor<float, 19, 700>(5);
    auto out = random_tensor<float, 11, 19>(6), old = random_tensor<float, 11, 19>(6);
    auto sum = random_tensor<float, 11, 19>(6);
    gf::matmul<transpose::b>(ctx, a, b, out);
    gf::matmul<transpose::b>(ctx, a, b, sum, into::accumulate);
    int wrong = 0;
    for (int i = 0; i < 11; ++i)
        for (int j = 0; j < 19; ++j) {
            float fresh = 0, from_old = old(i, j);
            for (int k = 0; k < 700; ++k) {
                fresh = std::fma(a(i, k), b(j, k), fresh);
                from_old = std::fma(a(i, k), b(j, k), from_old);
            }
            wrong += out(i, j) != fresh || sum(i, j) != from_old;
        }
    BOOST_TEST(wrong == 0);
}
#endif

BOOST_AUTO_TEST_CASE(same_bits_for_any_threads_and_batch) {
    auto a = random_tensor<bf16, dyn, 130>(7, 90);
    auto b = random_tensor<bf16, 150, 130>(8);
    auto expected = zero_tensor<float, dyn, 150>(90);
    gf::context<gf::cpu> one(1);
    gf::matmul<transpose::b>(one, a, b, expected);
    for (int threads : {2, 3, 7}) {
        auto ctx = backwards(threads);
        auto out = random_tensor<float, dyn, 150>(9, 90);
        gf::matmul<transpose::b>(ctx, a, b, out);
        BOOST_TEST((same_bits(out, expected)));
    }
    auto parts = random_tensor<float, dyn, 150>(9, 90);
    for (index_t first = 0; first < 90; first += 7) {
        const index_t count = first + 7 <= 90 ? 7 : 90 - first;
        gf::matmul<transpose::b>(one, a.view().slice(first, count), b, parts.view().slice(first, count));
    }
    BOOST_TEST((same_bits(parts, expected)));
}

BOOST_AUTO_TEST_CASE(strided_rows_are_honoured) {
    // q, k and v side by side in the columns of one matrix.
    gf::context<gf::cpu> ctx(1);
    auto fused = random_tensor<float, 5, 24>(10);
    auto before = random_tensor<float, 5, 24>(10);
    auto w = random_tensor<float, 8, 8>(11);
    auto alone = zero_tensor<float, 5, 8>(), copied = zero_tensor<float, 5, 8>();
    for (int i = 0; i < 5; ++i)
        for (int j = 0; j < 8; ++j) copied(i, j) = fused(i, j + 8);
    gf::matmul(ctx, copied, w, alone);
    const gf::view<float, 5, 8> q(fused.data(), {5, 8}, 24), k(fused.data() + 8, {5, 8}, 24);
    gf::matmul(ctx, k, w, q);  // disjoint columns of one matrix do not overlap
    for (int i = 0; i < 5; ++i)
        for (int j = 0; j < 24; ++j) BOOST_TEST(fused(i, j) == (j < 8 ? alone(i, j) : before(i, j)));
}

BOOST_AUTO_TEST_CASE(nothing_to_do_writes_nothing) {
    gf::context<gf::cpu> ctx(1);
    ctx.fix_workspace();
    const gf::view<float, dyn, 4> none(nullptr, {0, 4});
    auto b = random_tensor<float, 4, 3>(1);
    const gf::view<float, dyn, 3> out(nullptr, {0, 3});
    gf::matmul(ctx, none, b, out);
    BOOST_TEST(ctx.workspace_bytes() == 0u);
}

BOOST_AUTO_TEST_CASE(bad_arguments) {
    gf::context<gf::cpu> ctx(1);
    auto a = random_tensor<float, dyn, dyn>(1, 4, 6), b = random_tensor<float, dyn, dyn>(2, 6, 5);
    auto out = random_tensor<float, dyn, dyn>(3, 4, 5);
    auto longer = random_tensor<float, dyn, dyn>(3, 7, 5);
    using rows = gf::view<float, dyn, dyn>;
    check_rejects(out, [&] { gf::matmul(ctx, a, longer, out); }, {"gatefold::matmul: b:", "expected 6", "got 7"});
    check_rejects(longer, [&] { gf::matmul(ctx, a, b, longer); }, {"gatefold::matmul: out:", "expected 4", "got 7"});
    check_rejects(out, [&] { gf::matmul(ctx, rows(nullptr, {4, 6}), b, out); }, {"matmul: a:", "memory", "null"});
    check_rejects(out, [&] { gf::matmul(ctx, a, rows(nullptr, {6, 5}), out); }, {"matmul: b:", "memory", "null"});
    check_rejects(out, [&] { gf::matmul(ctx, a, b, rows(nullptr, {4, 5})); }, {"matmul: out:", "memory", "null"});
    check_rejects(out, [&] { gf::matmul(ctx, a, b, rows(out.data(), {4, 5}, 4)); }, {"matmul: out:", "row stride"});
    check_rejects(out, [&] { gf::matmul(ctx, a, b, rows(out.data(), {4, -5})); }, {"matmul: out:", "zero or more"});
    auto* odd = reinterpret_cast<float*>(reinterpret_cast<std::byte*>(a.data()) + 1);
    check_rejects(out,
                  [&] {
                      gf::matmul(ctx, rows(odd, {2, 6}), b, rows(out.data(), {2, 5}));
                  },
                  {"matmul: a:", "alignment", "got 1"});
    auto square = random_tensor<float, 5, 5>(4);
    check_rejects(square, [&] { gf::matmul(ctx, square, square, square); }, {"matmul: out:", "overlap"});
    check_rejects(b,
                  [&] {
                      gf::matmul(ctx, rows(out.data(), {1, 1}), rows(b.data(), {1, 6}), rows(b.data() + 5, {1, 6}));
                  },
                  {"matmul: out:", "overlap"});
    // A view whose run-time extents contradict its type.
    check_rejects(out,
                  [&] {
                      gf::matmul(ctx, gf::view<float, dyn, 6>(a.data(), {4, 5}), b, out);
                  },
                  {"matmul: a:", "expected 6", "got 5"});
    // Too little workspace that may not grow.
    gf::context<gf::cpu> fixed(1);
    fixed.fix_workspace();
    check_rejects(out, [&] { gf::matmul(fixed, a, b, out); }, {"context::workspace", "reserved"});
}

BOOST_AUTO_TEST_CASE(bad_arguments_of_backward) {
    gf::context<gf::cpu> ctx(1);
    auto a = random_tensor<float, dyn, dyn>(1, 4, 6), b = random_tensor<float, dyn, dyn>(2, 6, 5);
    auto dout = random_tensor<float, dyn, dyn>(3, 4, 5), wrong = random_tensor<float, dyn, dyn>(3, 5, 4);
    auto da = random_tensor<float, dyn, dyn>(4, 4, 6), db = random_tensor<float, dyn, dyn>(5, 6, 5);
    check_rejects(da, [&] { gf::matmul_backward(ctx, a, b, wrong, da, db); }, {"matmul_backward: dout:", "expected 4"});
    check_rejects(da, [&] { gf::matmul_backward(ctx, a, b, dout, da, da); }, {"matmul_backward: db:", "expected 6"});
    check_rejects(da, [&] { gf::matmul_backward(ctx, a, b, dout, da, b); }, {"matmul_backward: db:", "overlap"});
    check_rejects(db, [&] { gf::matmul_backward(ctx, a, b, dout, a, db); }, {"matmul_backward: da:", "overlap"});
    // A second product that cannot have its workspace must not leave the first one behind.
    gf::context<gf::cpu> fixed(1);
    fixed.fix_workspace();
    check_rejects(da, [&] { gf::matmul_backward(fixed, a, b, dout, da, db); }, {"context::workspace"});
    // One that the first product fits into, but not the second, which turns the larger a.
    auto tall = random_tensor<float, dyn, dyn>(6, 200, 2), dtall = random_tensor<float, dyn, dyn>(7, 200, 2);
    auto turned = random_tensor<float, dyn, dyn>(8, 3, 200), dturned = random_tensor<float, dyn, dyn>(9, 3, 200);
    auto small = random_tensor<float, dyn, dyn>(10, 2, 3);
    fixed.fix_workspace(false);
    gf::matmul<transpose::both>(fixed, turned, small, dtall);
    randomise(dtall.view(), 11);
    fixed.fix_workspace();
    check_rejects(dtall, [&] { gf::matmul_backward<transpose::both>(fixed, tall, turned, small, dtall, dturned); },
                  {"context::workspace"});
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
