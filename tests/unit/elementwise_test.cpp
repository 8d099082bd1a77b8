// ctest: heavy
// Element by element, plain and gated activations on tensors: values, shapes of any rank, places in memory, bad
// arguments.
#include <tuple>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/ops/activate.hpp>
#include <gatefold/ops/elementwise.hpp>
#include <tests/unit/tensors.hpp>

namespace {

using namespace tests;
using gf::activation;

// Every element of out against f of the elements of x as doubles, one rounding apart.
template <class Out, class F, class... X>
int differing(const Out& out, double units, F f, const X&... x) {
    int wrong = 0;
    for (index_t i = 0; i < out.size(); ++i)
        wrong += !close<typename Out::value_type>(static_cast<double>(out.data()[i]),
                                                  f(static_cast<double>(x.data()[i])...), units, 1);
    return wrong;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(elementwise)

using all_types = std::tuple<float, double, gatefold::bf16, gatefold::f16>;

BOOST_AUTO_TEST_CASE_TEMPLATE(values, T, all_types) {
    gf::context<gf::cpu> ctx(2);
    auto a = random_tensor<T, dyn, 37>(1, 9), b = random_tensor<T, dyn, 37>(2, 9),
         out = random_tensor<T, dyn, 37>(3, 9);
    gf::add(ctx, a, b, out);
    BOOST_TEST(differing(
                   out, 0.5, [](double x, double y) { return x + y; }, a, b) == 0);
    gf::mul(ctx, a, b, out);
    BOOST_TEST(differing(
                   out, 0.5, [](double x, double y) { return x * y; }, a, b) == 0);
    gf::scale(ctx, 0.75, a, out);
    BOOST_TEST(differing(
                   out, 0.5, [](double x) { return 0.75 * x; }, a) == 0);
    gf::copy(ctx, b, out);
    gf::axpy(ctx, -3, a, out);
    BOOST_TEST(differing(
                   out, 1, [](double x, double y) { return y - 3 * x; }, a, b) == 0);
    gf::fill(ctx, 0.1, out);
    BOOST_TEST(differing(
                   out, 0.5, [](double) { return 0.1; }, a) == 0);
    auto bias = random_tensor<T, 37>(4);
    gf::add_bias(ctx, a, bias, out);
    int wrong = 0;
    for (int r = 0; r < 9; ++r)
        for (int i = 0; i < 37; ++i)
            wrong += !close<T>(static_cast<double>(out(r, i)),
                               static_cast<double>(a(r, i)) + static_cast<double>(bias(i)), 0.5, 1);
    BOOST_TEST(wrong == 0);
    auto da = random_tensor<T, dyn, 37>(5, 9), db = random_tensor<T, dyn, 37>(6, 9);
    gf::mul_backward(ctx, a, b, out, da, db);
    BOOST_TEST(differing(
                   da, 0.5, [](double x, double y) { return x * y; }, out, b) == 0);
    BOOST_TEST(differing(
                   db, 0.5, [](double x, double y) { return x * y; }, out, a) == 0);
}

BOOST_AUTO_TEST_CASE(copy_converts_with_one_rounding) {
    gf::context<gf::cpu> ctx(1);
    auto wide = zero_tensor<double, 3>();
    wide(0) = 1 + 0x1p-8 + 0x1p-40, wide(1) = -1e300, wide(2) = 0x1p-140;
    auto narrow = zero_tensor<bf16, 3>();
    gf::copy(ctx, wide, narrow);
    for (int i = 0; i < 3; ++i) BOOST_TEST(narrow(i).bits == bf16(wide(i)).bits);
    gf::copy(ctx, narrow, wide);
    for (int i = 0; i < 3; ++i) BOOST_TEST(wide(i) == static_cast<double>(static_cast<float>(narrow(i))));
}

BOOST_AUTO_TEST_CASE(types_may_differ) {
    gf::context<gf::cpu> ctx(1);
    auto gradient = random_tensor<float, 40>(1), before = random_tensor<float, 40>(1);
    auto x = random_tensor<bf16, 40>(2);
    gf::axpy(ctx, 1, x, gradient);
    for (int i = 0; i < 40; ++i) BOOST_TEST(gradient(i) == before(i) + static_cast<float>(x(i)));
}

BOOST_AUTO_TEST_CASE(any_rank_in_place_and_strided) {
    gf::context<gf::cpu> ctx(1);
    auto a = random_tensor<float, 2, dyn, 5>(1, 3), sum = random_tensor<float, 2, dyn, 5>(2, 3);
    gf::add(ctx, a, a, sum);
    gf::add(ctx, a, a, a);
    BOOST_TEST((same_bits(a, sum)));
    // The middle columns of a matrix; the others stay.
    auto m = random_tensor<float, 4, 9>(3), before = random_tensor<float, 4, 9>(3);
    const gf::view<float, 4, 3> middle(m.data() + 3, {4, 3}, 9);
    gf::scale(ctx, 2, middle, middle);
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 9; ++j) BOOST_TEST(m(i, j) == (j >= 3 && j < 6 ? 2 : 1) * before(i, j));
    // A stride of zero reads one row again and again.
    auto row = random_tensor<float, 9>(4);
    const gf::view<const float, 4, 9> repeated(row.data(), {4, 9}, 0);
    gf::copy(ctx, repeated, m);
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 9; ++j) BOOST_TEST(m(i, j) == row(j));
}

BOOST_AUTO_TEST_CASE(same_bits_for_any_threads) {
    auto a = random_tensor<float, dyn>(1, 200001), b = random_tensor<float, dyn>(2, 200001);
    auto expected = random_tensor<float, dyn>(2, 200001);
    gf::context<gf::cpu> one(1);
    gf::axpy(one, 0.3, a, expected);
    for (int threads : {2, 5}) {
        auto ctx = backwards(threads);
        auto out = random_tensor<float, dyn>(2, 200001);
        gf::axpy(ctx, 0.3, a, out);
        BOOST_TEST((same_bits(out, expected)));
    }
    BOOST_TEST(!same_bits(b, expected));
}

BOOST_AUTO_TEST_CASE(a_product_is_not_fused_with_what_follows) {
    // 1 + u squared is 1 + 2u + u²; the last term is lost when the product is rounded by itself.
    gf::context<gf::cpu> ctx(1);
    auto x = zero_tensor<float, 16>(), y = zero_tensor<float, 16>(), z = zero_tensor<float, 16>();
    gf::fill(ctx, 1 + 0x1p-12, x);
    gf::fill(ctx, -1, z);
    gf::mul(ctx, x, x, y);
    gf::add(ctx, y, z, y);
    BOOST_TEST(y(3) == 0x1p-11f);
    // axpy is fused, where mul and add are not.
    gf::axpy(ctx, 1 + 0x1p-12, x, z);
    BOOST_TEST(z(3) == 0x1p-11f + 0x1p-24f);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(plain_activations, T, all_types) {
    gf::context<gf::cpu> ctx(1);
    auto x = random_tensor<T, 3, 21>(1), out = random_tensor<T, 3, 21>(2), dout = random_tensor<T, 3, 21>(3);
    gf::activate<activation::silu>(ctx, x, out);
    BOOST_TEST(differing(
                   out, 4, [](double v) { return v / (1 + std::exp(-v)); }, x) == 0);
    gf::activate<activation::relu>(ctx, x, out);
    BOOST_TEST(differing(
                   out, 0, [](double v) { return v > 0 ? v : 0; }, x) == 0);
    gf::activate_backward<activation::relu>(ctx, x, dout, out);
    BOOST_TEST(differing(
                   out, 0, [](double v, double d) { return v > 0 ? d : 0; }, x, dout) == 0);
    gf::activate_backward<activation::silu>(ctx, x, dout, dout);
    auto fresh = random_tensor<T, 3, 21>(3);
    BOOST_TEST(differing(
                   dout, 4,
                   [](double v, double d) {
                       const double s = 1 / (1 + std::exp(-v));
                       return d * (s + v * s * (1 - s));
                   },
                   x, fresh) == 0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(gated_activations, T, all_types) {
    gf::context<gf::cpu> ctx(1);
    // Gate and up are the column blocks of one matrix, as the layers store them.
    auto both = random_tensor<T, 3, 2 * 21>(1);
    const gf::view<T, 3, 21> gate(both.data(), {3, 21}, 42), up(both.data() + 21, {3, 21}, 42);
    auto g = zero_tensor<T, 3, 21>(), u = zero_tensor<T, 3, 21>(), out = random_tensor<T, 3, 21>(2);
    gf::copy(ctx, gate, g);
    gf::copy(ctx, up, u);
    gf::activate<activation::swiglu>(ctx, gate, up, out);
    BOOST_TEST(differing(
                   out, 4, [](double a, double b) { return a / (1 + std::exp(-a)) * b; }, g, u) == 0);
    auto dout = random_tensor<T, 3, 21>(3), dg = random_tensor<T, 3, 21>(4), du = random_tensor<T, 3, 21>(5);
    gf::activate_backward<activation::swiglu>(ctx, gate, up, dout, dg, du);
    BOOST_TEST(differing(
                   du, 4, [](double a, double d) { return d * a / (1 + std::exp(-a)); }, g, dout) == 0);
    // In place over its own inputs.
    gf::activate_backward<activation::swiglu>(ctx, gate, up, dout, gate, up);
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 21; ++j)
            BOOST_TEST((static_cast<double>(gate(i, j)) == static_cast<double>(dg(i, j)) &&
                        static_cast<double>(up(i, j)) == static_cast<double>(du(i, j))));
    BOOST_CHECK_THROW(gf::activate<activation::clamped_swiglu>(ctx, g, u, out), gf::argument_error);
}

BOOST_AUTO_TEST_CASE(bad_arguments) {
    gf::context<gf::cpu> ctx(1);
    auto a = random_tensor<float, dyn, dyn>(1, 4, 6), b = random_tensor<float, dyn, dyn>(2, 4, 5);
    auto out = random_tensor<float, dyn, dyn>(3, 4, 6);
    auto line = random_tensor<float, dyn>(4, 40);
    using rows = gf::view<float, dyn, dyn>;
    check_rejects(out, [&] { gf::add(ctx, a, b, out); }, {"gatefold::add: out: expected 5, got 6"});
    check_rejects(b, [&] { gf::add(ctx, a, a, b); }, {"add: out:", "expected 6, got 5"});
    check_rejects(out, [&] { gf::mul(ctx, a, rows(nullptr, {4, 6}), out); }, {"mul: b:", "null"});
    check_rejects(out, [&] { gf::scale(ctx, 2, b, out); }, {"scale: out:"});
    check_rejects(out, [&] { gf::axpy(ctx, 2, b, out); }, {"axpy: y:"});
    check_rejects(out, [&] { gf::copy(ctx, b, out); }, {"copy: out:"});
    check_rejects(out, [&] { gf::add_bias(ctx, a, line, out); }, {"add_bias: bias: expected 6, got 40"});
    check_rejects(
        line,
        [&] { gf::copy(ctx, gf::view<float, dyn>(line.data(), {20}), gf::view<float, dyn>(line.data() + 1, {20})); },
        {"copy: out:", "partial overlap"});
    check_rejects(a, [&] { gf::mul_backward(ctx, a, a, out, a, out); }, {"mul_backward: da:", "overlap"});
    auto* odd = reinterpret_cast<float*>(reinterpret_cast<std::byte*>(line.data()) + 2);
    check_rejects(line, [&] { gf::fill(ctx, 1, gf::view<float, dyn>(odd, {3})); },
                  {"fill: out:", "alignment", "got 2"});
    check_rejects(out, [&] { gf::activate<activation::relu>(ctx, b, out); }, {"activate: out:"});
    check_rejects(out, [&] { gf::activate_backward<activation::swiglu>(ctx, a, a, a, out, out); },
                  {"activate_backward: dup:", "overlap"});
    check_rejects(out, [&] { gf::activate_backward<activation::clamped_swiglu>(ctx, a, a, a, out, b); },
                  {"activate_backward: dup:"});
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
