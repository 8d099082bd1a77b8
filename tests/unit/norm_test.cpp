// ctest: heavy
// RMSNorm in its three forms and LayerNorm: values against double, both cast orders to the bit, bad arguments.
#include <cmath>
#include <tuple>

#include <boost/test/unit_test.hpp>

#include <gatefold/ops/norm.hpp>
#include <tests/unit/tensors.hpp>

namespace {

using namespace tests;
using gf::norm_weight;

template <class T>
double mean_square(const T* x, index_t n) {
    double sum = 0;
    for (index_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    return sum / static_cast<double>(n);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(norm)

using all_types = std::tuple<float, double, gatefold::bf16, gatefold::f16>;

BOOST_AUTO_TEST_CASE_TEMPLATE(rms_norm_values, T, all_types) {
    gf::context<gf::cpu> ctx(2);
    for (index_t n : {1, 7, 16, 100}) {
        auto x = random_tensor<T, dyn, dyn>(1, 5, n), rounded = random_tensor<T, dyn, dyn>(2, 5, n);
        auto full = random_tensor<T, dyn, dyn>(3, 5, n), centred = random_tensor<T, dyn, dyn>(4, 5, n);
        auto plain = random_tensor<T, dyn, dyn>(5, 5, n);
        auto w = random_tensor<T, dyn>(6, n);
        gf::rms_norm(ctx, x, w, rounded, 1e-3);
        gf::rms_norm<norm_weight::full>(ctx, x, w, full, 1e-3);
        gf::rms_norm<norm_weight::zero_centred>(ctx, x, w, centred, 1e-3);
        gf::rms_norm(ctx, x, plain, 1e-3);
        int wrong = 0;
        for (index_t r = 0; r < 5; ++r) {
            const double inverse = 1 / std::sqrt(mean_square(x.view().row(r), n) + 1e-3);
            for (index_t i = 0; i < n; ++i) {
                const double normal = static_cast<double>(x(r, i)) * inverse, weight = static_cast<double>(w(i));
                wrong += !close<T>(static_cast<double>(plain(r, i)), normal, 3, 0.01);
                wrong += !close<T>(static_cast<double>(rounded(r, i)), normal * weight, 4, 0.01);
                wrong += !close<T>(static_cast<double>(full(r, i)), normal * weight, 4, 0.01);
                wrong += !close<T>(static_cast<double>(centred(r, i)), normal * (1 + weight), 4, 0.1);
            }
        }
        BOOST_TEST(wrong == 0);
        gf::rms_norm(ctx, x, w, x, 1e-3);
        BOOST_TEST((same_bits(x, rounded)));
    }
}

BOOST_AUTO_TEST_CASE(cast_orders_differ_in_bf16) {
    gf::context<gf::cpu> ctx(1);
    auto x = random_tensor<bf16, 8, 64>(1), rounded = random_tensor<bf16, 8, 64>(2),
         full = random_tensor<bf16, 8, 64>(3);
    auto plain = random_tensor<bf16, 8, 64>(4);
    auto wide = random_tensor<float, 8, 64>(5);
    auto w = random_tensor<bf16, 64>(6);
    gf::rms_norm(ctx, x, w, rounded);
    gf::rms_norm<norm_weight::full>(ctx, x, w, full);
    gf::rms_norm(ctx, x, plain);
    gf::rms_norm(ctx, x, wide);
    int differ = 0;
    for (int r = 0; r < 8; ++r)
        for (int i = 0; i < 64; ++i) {
            BOOST_TEST(rounded(r, i).bits == bf16(static_cast<float>(plain(r, i)) * static_cast<float>(w(i))).bits);
            BOOST_TEST(full(r, i).bits == bf16(wide(r, i) * static_cast<float>(w(i))).bits);
            differ += rounded(r, i).bits != full(r, i).bits;
        }
    BOOST_TEST(differ > 0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(layer_norm_values, T, all_types) {
    gf::context<gf::cpu> ctx(2);
    for (index_t n : {1, 7, 16, 100}) {
        auto x = random_tensor<T, dyn, dyn>(1, 5, n), out = random_tensor<T, dyn, dyn>(2, 5, n);
        auto w = random_tensor<T, dyn>(3, n), b = random_tensor<T, dyn>(4, n);
        gf::layer_norm(ctx, x, w, b, out, 1e-3);
        int wrong = 0;
        for (index_t r = 0; r < 5; ++r) {
            double mean = 0, variance = 0;
            for (index_t i = 0; i < n; ++i) mean += static_cast<double>(x(r, i)) / static_cast<double>(n);
            for (index_t i = 0; i < n; ++i)
                variance += std::pow(static_cast<double>(x(r, i)) - mean, 2) / static_cast<double>(n);
            for (index_t i = 0; i < n; ++i) {
                const double normal = (static_cast<double>(x(r, i)) - mean) / std::sqrt(variance + 1e-3);
                wrong += !close<T>(static_cast<double>(out(r, i)),
                                   normal * static_cast<double>(w(i)) + static_cast<double>(b(i)), 4, 2);
            }
        }
        BOOST_TEST(wrong == 0);
    }
}

BOOST_AUTO_TEST_CASE(large_means_do_not_cancel) {
    // The variance is that of the deviations, not mean(x²) − mean(x)².
    gf::context<gf::cpu> ctx(1);
    auto x = zero_tensor<float, 4>(), w = zero_tensor<float, 4>(), b = zero_tensor<float, 4>(),
         y = zero_tensor<float, 4>();
    for (int i = 0; i < 4; ++i) x(i) = 1e6f + static_cast<float>(i), w(i) = 1;
    gf::layer_norm(ctx, x, w, b, y, 0);
    BOOST_TEST(close<float>(static_cast<double>(y(0)), -1.5 / std::sqrt(1.25), 4, 1));
}

BOOST_AUTO_TEST_CASE(same_bits_for_any_threads_and_batch) {
    auto x = random_tensor<float, dyn, 200>(1, 150), dy = random_tensor<float, dyn, 200>(2, 150);
    auto w = random_tensor<float, 200>(3), b = random_tensor<float, 200>(4);
    auto y = random_tensor<float, dyn, 200>(5, 150), dx = random_tensor<float, dyn, 200>(6, 150);
    auto dw = random_tensor<float, 200>(7), ln_dw = random_tensor<float, 200>(8), ln_db = random_tensor<float, 200>(9);
    auto ln_dx = random_tensor<float, dyn, 200>(10, 150);
    gf::context<gf::cpu> one(1);
    gf::rms_norm(one, x, w, y);
    gf::rms_norm_backward(one, x, w, dy, dx, dw);
    gf::layer_norm_backward(one, x, w, dy, ln_dx, ln_dw, ln_db);
    for (int threads : {2, 3, 16}) {
        auto ctx = backwards(threads);
        auto y2 = random_tensor<float, dyn, 200>(11, 150), dx2 = random_tensor<float, dyn, 200>(2, 150);
        auto dw2 = random_tensor<float, 200>(12), db2 = random_tensor<float, 200>(13);
        gf::rms_norm(ctx, x, w, y2);
        gf::rms_norm_backward(ctx, x, w, dx2, dx2, dw2);  // in place over dy
        BOOST_TEST((same_bits(y, y2) && same_bits(dx, dx2) && same_bits(dw, dw2)));
        gf::layer_norm_backward(ctx, x, w, dy, dx2, dw2, db2);
        BOOST_TEST((same_bits(ln_dx, dx2) && same_bits(ln_dw, dw2) && same_bits(ln_db, db2)));
    }
    // A token's output does not depend on the tokens beside it, and gradients of parts add up to the same chain.
    auto parts = random_tensor<float, dyn, 200>(11, 150);
    auto part_dw = random_tensor<float, 200>(12);
    for (index_t first = 0; first < 150; first += 50) {
        const auto rows = x.view().slice(first, 50);
        gf::rms_norm(one, rows, w, parts.view().slice(first, 50));
        gf::rms_norm_backward(one, rows, w, dy.view().slice(first, 50), dx.view().slice(first, 50), part_dw, 1e-6,
                              first == 0 ? gf::into::replace : gf::into::accumulate);
    }
    BOOST_TEST((same_bits(parts, y) && same_bits(part_dw, dw)));
}

BOOST_AUTO_TEST_CASE(bad_arguments) {
    gf::context<gf::cpu> ctx(1);
    auto x = random_tensor<float, dyn, dyn>(1, 4, 6), out = random_tensor<float, dyn, dyn>(2, 4, 6);
    auto w = random_tensor<float, dyn>(3, 6), b = random_tensor<float, dyn>(4, 6),
         shorter = random_tensor<float, dyn>(5, 5);
    auto other = random_tensor<float, dyn, dyn>(6, 3, 6);
    const gf::view<float, dyn> none(nullptr, {6});
    check_rejects(out, [&] { gf::rms_norm(ctx, x, shorter, out); }, {"gatefold::rms_norm: weight: expected 6, got 5"});
    check_rejects(other, [&] { gf::rms_norm(ctx, x, w, other); }, {"rms_norm: out: expected 4, got 3"});
    check_rejects(out, [&] { gf::rms_norm(ctx, x, none, out); }, {"rms_norm: weight:", "null"});
    check_rejects(out, [&] { gf::rms_norm(ctx, x, gf::view<float, dyn>(out.data(), {6}), out); },
                  {"rms_norm: out:", "overlap"});
    check_rejects(out, [&] { gf::layer_norm(ctx, x, w, shorter, out); }, {"layer_norm: bias: expected 6, got 5"});
    check_rejects(w, [&] { gf::rms_norm_backward(ctx, x, w, x, out, w); }, {"rms_norm_backward: dweight:", "overlap"});
    check_rejects(x, [&] { gf::rms_norm_backward(ctx, x, w, out, x, b); }, {"rms_norm_backward: dx:", "overlap"});
    check_rejects(b, [&] { gf::rms_norm_backward(ctx, x, w, other, out, b); }, {"rms_norm_backward: dout: expected 4"});
    check_rejects(b, [&] { gf::layer_norm_backward(ctx, x, w, x, out, b, b); },
                  {"layer_norm_backward: dbias:", "overlap"});
    gf::context<gf::cpu> fixed(1);
    fixed.fix_workspace();
    check_rejects(b, [&] { gf::rms_norm_backward(fixed, x, w, x, out, b); }, {"context::workspace"});
    check_rejects(out, [&] { gf::rms_norm_backward(fixed, x, w, x, out, b); }, {"context::workspace"});
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
