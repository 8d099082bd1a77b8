// Every backward pass of the tensor operations against central differences in double.
//
// The loss is Σ c · out with fixed random c, so that dout = c and each gradient is the derivative of one number.
#include <cmath>
#include <functional>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/ops.hpp>
#include <tests/unit/tensors.hpp>

namespace {

using namespace tests;
using gf::activation;
using gf::norm_weight;
using gf::transpose;

// Σ c · y.
template <class Y, class C>
double weigh(const Y& y, const C& c) {
    double sum = 0;
    for (index_t i = 0; i < y.size(); ++i) sum += y.data()[i] * c.data()[i];
    return sum;
}

// Moves every element of x both ways and compares what the loss does with `gradient`.
template <class X, class G>
void check_gradient(X& x, const G& gradient, const std::function<double()>& loss, const char* name) {
    constexpr double step = 1e-5;
    int wrong = 0;
    double worst = 0;
    for (index_t i = 0; i < x.size(); ++i) {
        const double kept = x.data()[i];
        x.data()[i] = kept + step;
        const double above = loss();
        x.data()[i] = kept - step;
        const double below = loss();
        x.data()[i] = kept;
        const double expected = (above - below) / (2 * step), got = gradient.data()[i];
        const double off = std::fabs(got - expected) / std::fmax(1, std::fabs(expected));
        worst = std::fmax(worst, off);
        wrong += !(off < 2e-9);
    }
    BOOST_TEST(wrong == 0, name << ": " << wrong << " of " << x.size() << " elements, worst by " << worst);
}

template <transpose Op>
void check_matmul() {
    constexpr bool ta = Op == transpose::a || Op == transpose::both, tb = Op == transpose::b || Op == transpose::both;
    gf::context<gf::cpu> ctx(1);
    auto a = random_tensor < double, ta ? 5 : 3, ta ? 3 : 5 > (1);
    auto b = random_tensor < double, tb ? 4 : 5, tb ? 5 : 4 > (2);
    auto c = random_tensor<double, 3, 4>(3), out = random_tensor<double, 3, 4>(4);
    auto da = random_tensor < double, ta ? 5 : 3, ta ? 3 : 5 > (5);
    auto db = random_tensor < double, tb ? 4 : 5, tb ? 5 : 4 > (6);
    gf::matmul_backward<Op>(ctx, a, b, c, da, db);
    const auto loss = [&] {
        gf::matmul<Op>(ctx, a, b, out);
        return weigh(out, c);
    };
    check_gradient(a, da, loss, "matmul a");
    check_gradient(b, db, loss, "matmul b");
    // Accumulating twice gives twice as much.
    auto twice_a = da.view();
    gf::matmul_backward<Op>(ctx, a, b, c, twice_a, db, gf::into::accumulate);
    gf::scale(ctx, 0.5, da, da);
    gf::scale(ctx, 0.5, db, db);
    check_gradient(a, da, loss, "matmul a, accumulated");
    check_gradient(b, db, loss, "matmul b, accumulated");
}

template <norm_weight Form>
void check_rms_norm() {
    gf::context<gf::cpu> ctx(1);
    auto x = random_tensor<double, 4, 9>(1), c = random_tensor<double, 4, 9>(2), out = random_tensor<double, 4, 9>(3);
    auto dx = random_tensor<double, 4, 9>(4);
    auto w = random_tensor<double, 9>(5), dw = random_tensor<double, 9>(6);
    gf::rms_norm_backward<Form>(ctx, x, w, c, dx, dw, 1e-2);
    const auto loss = [&] {
        gf::rms_norm<Form>(ctx, x, w, out, 1e-2);
        return weigh(out, c);
    };
    check_gradient(x, dx, loss, "rms_norm x");
    check_gradient(w, dw, loss, "rms_norm weight");
}

// Away from kinks: no element within the step of zero or of the limit.
template <activation A>
void check_gated() {
    gf::context<gf::cpu> ctx(1);
    auto g = random_tensor<double, 3, 21>(1), u = random_tensor<double, 3, 21>(2), c = random_tensor<double, 3, 21>(3);
    auto out = random_tensor<double, 3, 21>(4), dg = random_tensor<double, 3, 21>(5),
         du = random_tensor<double, 3, 21>(6);
    gf::activate_backward<A>(ctx, g, u, c, dg, du, 0.7);
    const auto loss = [&] {
        gf::activate<A>(ctx, g, u, out, 0.7);
        return weigh(out, c);
    };
    check_gradient(g, dg, loss, "activate gate");
    check_gradient(u, du, loss, "activate up");
}

template <activation A>
void check_plain() {
    gf::context<gf::cpu> ctx(1);
    auto x = random_tensor<double, 3, 21>(1), c = random_tensor<double, 3, 21>(2),
         out = random_tensor<double, 3, 21>(3);
    auto dx = random_tensor<double, 3, 21>(4);
    gf::activate_backward<A>(ctx, x, c, dx);
    const auto loss = [&] {
        gf::activate<A>(ctx, x, out);
        return weigh(out, c);
    };
    check_gradient(x, dx, loss, "activate");
}

}  // namespace

BOOST_AUTO_TEST_SUITE(gradient)
BOOST_AUTO_TEST_SUITE(ops)

BOOST_AUTO_TEST_CASE(matmul) {
    check_matmul<transpose::none>();
    check_matmul<transpose::a>();
    check_matmul<transpose::b>();
    check_matmul<transpose::both>();
}

BOOST_AUTO_TEST_CASE(elementwise) {
    gf::context<gf::cpu> ctx(1);
    auto a = random_tensor<double, 3, 7>(1), b = random_tensor<double, 3, 7>(2), c = random_tensor<double, 3, 7>(3);
    auto out = random_tensor<double, 3, 7>(4), da = random_tensor<double, 3, 7>(5), db = random_tensor<double, 3, 7>(6);
    auto bias = random_tensor<double, 7>(7), dbias = random_tensor<double, 7>(8);
    gf::mul_backward(ctx, a, b, c, da, db);
    const auto product = [&] {
        gf::mul(ctx, a, b, out);
        return weigh(out, c);
    };
    check_gradient(a, da, product, "mul a");
    check_gradient(b, db, product, "mul b");
    gf::scale(ctx, -1.25, c, da);
    check_gradient(
        a, da,
        [&] {
            gf::scale(ctx, -1.25, a, out);
            return weigh(out, c);
        },
        "scale");
    check_gradient(
        a, da,
        [&] {
            gf::copy(ctx, b, out);
            gf::axpy(ctx, -1.25, a, out);
            return weigh(out, c);
        },
        "axpy x");
    check_gradient(
        b, c,
        [&] {
            gf::copy(ctx, b, out);
            gf::axpy(ctx, -1.25, a, out);
            return weigh(out, c);
        },
        "axpy y");
    check_gradient(
        b, c,
        [&] {
            gf::add(ctx, a, b, out);
            return weigh(out, c);
        },
        "add");
    gf::column_sum(ctx, c, dbias);
    check_gradient(
        bias, dbias,
        [&] {
            gf::add_bias(ctx, a, bias, out);
            return weigh(out, c);
        },
        "add_bias");
}

BOOST_AUTO_TEST_CASE(softmax) {
    gf::context<gf::cpu> ctx(1);
    auto x = random_tensor<double, 3, 18>(1), c = random_tensor<double, 3, 18>(2), y = random_tensor<double, 3, 18>(3);
    auto dx = random_tensor<double, 3, 18>(4);
    gf::softmax(ctx, x, y);
    gf::softmax_backward(ctx, y, c, dx);
    check_gradient(
        x, dx,
        [&] {
            gf::softmax(ctx, x, y);
            return weigh(y, c);
        },
        "softmax");
    gf::log_softmax(ctx, x, y);
    gf::log_softmax_backward(ctx, y, c, dx);
    check_gradient(
        x, dx,
        [&] {
            gf::log_softmax(ctx, x, y);
            return weigh(y, c);
        },
        "log_softmax");
}

BOOST_AUTO_TEST_CASE(rms_norm) {
    check_rms_norm<norm_weight::rounded>();
    check_rms_norm<norm_weight::full>();
    check_rms_norm<norm_weight::zero_centred>();
}

BOOST_AUTO_TEST_CASE(layer_norm) {
    gf::context<gf::cpu> ctx(1);
    auto x = random_tensor<double, 4, 9>(1), c = random_tensor<double, 4, 9>(2), out = random_tensor<double, 4, 9>(3);
    auto dx = random_tensor<double, 4, 9>(4);
    auto w = random_tensor<double, 9>(5), b = random_tensor<double, 9>(6), dw = random_tensor<double, 9>(7);
    auto db = random_tensor<double, 9>(8);
    gf::layer_norm_backward(ctx, x, w, c, dx, dw, db, 1e-2);
    const auto loss = [&] {
        gf::layer_norm(ctx, x, w, b, out, 1e-2);
        return weigh(out, c);
    };
    check_gradient(x, dx, loss, "layer_norm x");
    check_gradient(w, dw, loss, "layer_norm weight");
    check_gradient(b, db, loss, "layer_norm bias");
}

BOOST_AUTO_TEST_CASE(activations) {
    check_plain<activation::silu>();
    check_plain<activation::gelu_tanh>();
    check_plain<activation::gelu_erf>();
    check_plain<activation::relu>();
    check_plain<activation::relu_squared>();
    check_gated<activation::swiglu>();
    check_gated<activation::geglu_tanh>();
    check_gated<activation::clamped_swiglu>();
}

BOOST_AUTO_TEST_CASE(reductions) {
    gf::context<gf::cpu> ctx(1);
    auto x = random_tensor<double, 4, 6>(1), dx = random_tensor<double, 4, 6>(2);
    auto c = random_tensor<double, 4>(3), out = random_tensor<double, 4>(4);
    auto along = random_tensor<double, 6>(5), columns = random_tensor<double, 6>(6);
    auto places = zero_tensor<std::int32_t, 4>();
    gf::row_sum_backward(ctx, c, dx);
    check_gradient(
        x, dx,
        [&] {
            gf::row_sum(ctx, x, out);
            return weigh(out, c);
        },
        "row_sum");
    gf::row_mean_backward(ctx, c, dx);
    check_gradient(
        x, dx,
        [&] {
            gf::row_mean(ctx, x, out);
            return weigh(out, c);
        },
        "row_mean");
    gf::row_argmax(ctx, x, places);
    gf::row_max_backward(ctx, places, c, dx);
    check_gradient(
        x, dx,
        [&] {
            gf::row_max(ctx, x, out);
            return weigh(out, c);
        },
        "row_max");
    gf::column_sum_backward(ctx, along, dx);
    check_gradient(
        x, dx,
        [&] {
            gf::column_sum(ctx, x, columns);
            return weigh(columns, along);
        },
        "column_sum");
    gf::fill(ctx, 3, dx);
    check_gradient(
        x, dx, [&] { return 3 * gf::sum(ctx, x); }, "sum");
    gf::fill(ctx, 1.0 / 24, dx);
    check_gradient(
        x, dx, [&] { return gf::mean(ctx, x); }, "mean");
}

BOOST_AUTO_TEST_CASE(top_k) {
    gf::context<gf::cpu> ctx(1);
    auto x = random_tensor<double, 4, 9>(1), dx = random_tensor<double, 4, 9>(2);
    auto c = random_tensor<double, 4, 3>(3), values = random_tensor<double, 4, 3>(4);
    auto ids = zero_tensor<std::int32_t, 4, 3>();
    gf::top_k(ctx, x, values, ids);
    gf::top_k_backward(ctx, ids, c, dx);
    check_gradient(
        x, dx,
        [&] {
            gf::top_k(ctx, x, values, ids);
            return weigh(values, c);
        },
        "top_k");
}

BOOST_AUTO_TEST_CASE(rows_by_index) {
    gf::context<gf::cpu> ctx(1);
    auto table = random_tensor<double, 5, 4>(1), dtable = random_tensor<double, 5, 4>(2);
    auto c = random_tensor<double, 7, 4>(3), out = random_tensor<double, 7, 4>(4),
         rows = random_tensor<double, 7, 4>(5);
    auto drows = random_tensor<double, 7, 4>(6);
    auto ids = zero_tensor<std::int32_t, 7>();
    for (int i = 0; i < 7; ++i) ids(i) = i * 3 % 4;
    gf::scatter_add(ctx, c, ids, dtable);
    check_gradient(
        table, dtable,
        [&] {
            gf::gather(ctx, table, ids, out);
            return weigh(out, c);
        },
        "gather");
    gf::embedding_backward(ctx, ids, c, dtable);
    check_gradient(
        table, dtable,
        [&] {
            gf::embedding(ctx, ids, table, out);
            return weigh(out, c);
        },
        "embedding");
    auto weights = random_tensor<double, 5, 4>(7), sums = random_tensor<double, 5, 4>(8);
    gf::gather(ctx, weights, ids, drows);
    check_gradient(
        rows, drows,
        [&] {
            gf::scatter_add(ctx, rows, ids, sums);
            return weigh(sums, weights);
        },
        "scatter_add");
}

BOOST_AUTO_TEST_CASE(cross_entropy) {
    gf::context<gf::cpu> ctx(1);
    auto logits = random_tensor<double, 5, 11>(1), gradient = random_tensor<double, 5, 11>(2);
    auto targets = zero_tensor<std::int32_t, 5>();
    for (int t = 0; t < 5; ++t) targets(t) = t == 3 ? gf::ignored_target : 2 * t;
    gf::cross_entropy(ctx, logits, targets, gradient, gf::ignored_target, 1.5);
    check_gradient(
        logits, gradient, [&] { return 1.5 * gf::cross_entropy(ctx, logits, targets).loss; }, "cross_entropy");
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
