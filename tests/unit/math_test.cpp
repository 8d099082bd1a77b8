// ctest: heavy
// Elementary functions: error bounds over every binade against long double, special values, and products kept apart.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <boost/mpl/list.hpp>
#include <boost/test/unit_test.hpp>

#include <gatefold/core/math.hpp>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

namespace gf = gatefold;

template <class S>
using word_of = std::conditional_t<sizeof(S) == 4, std::uint32_t, std::uint64_t>;
template <class S>
constexpr S infinity = std::numeric_limits<S>::infinity();
template <class S>
constexpr bool single = std::is_same_v<S, float>;

// The distance of neighbouring numbers of S around an exact value.
template <class S>
long double unit_in_last_place(long double exact) {
    int exponent = 0;
    std::frexp(exact, &exponent);
    return std::ldexp(1.0L,
                      (std::max)(exponent, std::numeric_limits<S>::min_exponent) - std::numeric_limits<S>::digits);
}

// Calls f with numbers of every binade and both signs, subnormals and infinities included, about `count` in all.
template <class S, class F>
void for_each_magnitude(std::uint64_t count, F f) {
    using word = word_of<S>;
    const word last = std::bit_cast<word>(infinity<S>);
    const word step = static_cast<word>(2 * static_cast<double>(last) / static_cast<double>(count)) | 1u;
    for (word bits = 0; bits < last; bits += step) {
        f(std::bit_cast<S>(bits));
        f(-std::bit_cast<S>(bits));
    }
    f(infinity<S>);
    f(-infinity<S>);
}

// The largest error of `computed` in units in the last place; a wrong infinity or NaN counts as infinite.
template <class S, class Computed, class Exact>
double largest_error(Computed computed, Exact exact, std::uint64_t count = 400000) {
    double largest = 0;
    for_each_magnitude<S>(count, [&](S x) {
        const S y = computed(x);
        const long double e = exact(static_cast<long double>(x));
        if (std::isnan(e) && std::isnan(y)) return;
        if (static_cast<long double>(y) == e || (std::isinf(y) && y == static_cast<S>(e))) return;
        const auto error = static_cast<double>(std::fabs(static_cast<long double>(y) - e) / unit_in_last_place<S>(e));
        largest = error <= largest ? largest : std::isnan(error) ? HUGE_VAL : error;
    });
    return largest;
}

template <class S>
constexpr long double exp_cut = single<S> ? -125.5L * 0.693147180559945309417L : -1021.5L * 0.693147180559945309417L;

using reals = boost::mpl::list<float, double>;

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(math)

BOOST_AUTO_TEST_CASE_TEMPLATE(exp_is_within_1_ulp, S, reals) {
    const auto exact = [](long double x) { return x < exp_cut<S> ? 0.0L : std::exp(x); };
    BOOST_TEST(largest_error<S>([](S x) { return gf::exp(x); }, exact, 4000000) <= 1.0);
}
BOOST_AUTO_TEST_CASE_TEMPLATE(log_is_within_1_ulp, S, reals) {
    BOOST_TEST(largest_error<S>([](S x) { return gf::log(x); }, [](long double x) { return std::log(x); }) <= 1.0);
}
BOOST_AUTO_TEST_CASE_TEMPLATE(log1p_is_within_2_ulp, S, reals) {
    BOOST_TEST(largest_error<S>([](S x) { return gf::log1p(x); }, [](long double x) { return std::log1p(x); }) <= 2.0);
}
BOOST_AUTO_TEST_CASE_TEMPLATE(sigmoid_is_within_2_5_ulp, S, reals) {
    const long double overflow = std::log(static_cast<long double>(std::numeric_limits<S>::max()));
    const auto exact = [=](long double x) { return x < -overflow ? 0.0L : 1 / (1 + std::exp(-x)); };
    BOOST_TEST(largest_error<S>([](S x) { return gf::sigmoid(x); }, exact) <= 2.5);
}
BOOST_AUTO_TEST_CASE_TEMPLATE(tanh_is_within_2_ulp, S, reals) {
    BOOST_TEST(largest_error<S>([](S x) { return gf::tanh(x); }, [](long double x) { return std::tanh(x); }) <= 2.0);
}
BOOST_AUTO_TEST_CASE_TEMPLATE(erf_is_within_2_ulp, S, reals) {
    BOOST_TEST(largest_error<S>([](S x) { return gf::erf(x); }, [](long double x) { return std::erf(x); }) <= 2.0);
}
BOOST_AUTO_TEST_CASE_TEMPLATE(softplus_is_within_3_ulp, S, reals) {
    const auto exact = [](long double x) {
        return x < exp_cut<S> ? 0.0L : x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
    };
    BOOST_TEST(largest_error<S>([](S x) { return gf::softplus(x); }, exact) <= 3.0);
}
BOOST_AUTO_TEST_CASE_TEMPLATE(rsqrt_is_within_1_5_ulp, S, reals) {
    BOOST_TEST(largest_error<S>([](S x) { return gf::rsqrt(x); }, [](long double x) { return 1 / std::sqrt(x); }) <=
               1.5);
}

// Where the functions are used most, and where their branches meet, sampled densely.
BOOST_AUTO_TEST_CASE_TEMPLATE(errors_between_minus_12_and_12, S, reals) {
    double exp_error = 0, sigmoid_error = 0, tanh_error = 0, erf_error = 0, log1p_error = 0;
    const auto note = [](double& largest, S y, long double e) {
        largest = (std::max)(
            largest, static_cast<double>(std::fabs(static_cast<long double>(y) - e) / unit_in_last_place<S>(e)));
    };
    for (int i = -150000; i <= 150000; ++i) {
        const S x = static_cast<S>(i) * static_cast<S>(12.0 / 150001);
        const auto exact = static_cast<long double>(x);
        note(exp_error, gf::exp(x), std::exp(exact));
        note(sigmoid_error, gf::sigmoid(x), 1 / (1 + std::exp(-exact)));
        note(tanh_error, gf::tanh(x), std::tanh(exact));
        note(erf_error, gf::erf(x), std::erf(exact));
        if (x > -1) note(log1p_error, gf::log1p(x), std::log1p(exact));
    }
    BOOST_TEST(exp_error <= 1.0);
    BOOST_TEST(sigmoid_error <= 2.5);
    BOOST_TEST(tanh_error <= 2.0);
    BOOST_TEST(erf_error <= 2.0);
    BOOST_TEST(log1p_error <= 2.0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(special_values, S, reals) {
    const S inf = infinity<S>, nan = std::numeric_limits<S>::quiet_NaN(), zero = 0, one = 1;
    for (const S n : {nan, -nan}) {
        BOOST_TEST(std::isnan(gf::exp(n)));
        BOOST_TEST(std::isnan(gf::log(n)));
        BOOST_TEST(std::isnan(gf::log1p(n)));
        BOOST_TEST(std::isnan(gf::sigmoid(n)));
        BOOST_TEST(std::isnan(gf::tanh(n)));
        BOOST_TEST(std::isnan(gf::softplus(n)));
        BOOST_TEST(std::isnan(gf::erf(n)));
        BOOST_TEST(std::isnan(gf::rsqrt(n)));
    }
    BOOST_TEST(gf::exp(zero) == 1);
    BOOST_TEST(gf::exp(inf) == inf);
    BOOST_TEST(gf::exp(-inf) == 0);
    const S largest = std::log(std::numeric_limits<S>::max());
    BOOST_TEST(gf::exp(std::nextafter(largest, zero)) < inf);
    BOOST_TEST(gf::exp(std::nextafter(largest, inf)) == inf);
    BOOST_TEST(gf::exp(single<S> ? S(-86.9) : S(-708.0)) >= std::numeric_limits<S>::min());
    BOOST_TEST(gf::exp(single<S> ? S(-87.1) : S(-708.1)) == 0);

    BOOST_TEST(gf::log(zero) == -inf);
    BOOST_TEST(gf::log(-zero) == -inf);
    BOOST_TEST(gf::log(one) == 0);
    BOOST_TEST(!std::signbit(gf::log(one)));
    BOOST_TEST(gf::log(inf) == inf);
    BOOST_TEST(std::isnan(gf::log(-one)));
    BOOST_TEST(std::isnan(gf::log(-inf)));
    BOOST_TEST(std::isnan(gf::log(-std::numeric_limits<S>::denorm_min())));

    BOOST_TEST(gf::log1p(-one) == -inf);
    BOOST_TEST(std::isnan(gf::log1p(std::nextafter(-one, -inf))));
    BOOST_TEST(std::isnan(gf::log1p(-inf)));
    BOOST_TEST(gf::log1p(inf) == inf);
    BOOST_TEST(std::signbit(gf::log1p(-zero)));
    BOOST_TEST(!std::signbit(gf::log1p(zero)));

    BOOST_TEST(gf::sigmoid(zero) == S(0.5));
    BOOST_TEST(gf::sigmoid(inf) == 1);
    BOOST_TEST(gf::sigmoid(-inf) == 0);
    BOOST_TEST(gf::tanh(inf) == 1);
    BOOST_TEST(gf::tanh(-inf) == -1);
    BOOST_TEST(std::signbit(gf::tanh(-zero)));
    BOOST_TEST(gf::erf(inf) == 1);
    BOOST_TEST(gf::erf(-inf) == -1);
    BOOST_TEST(std::signbit(gf::erf(-zero)));
    BOOST_TEST(gf::softplus(inf) == inf);
    BOOST_TEST(gf::softplus(-inf) == 0);
    BOOST_TEST(gf::rsqrt(zero) == inf);
    BOOST_TEST(gf::rsqrt(inf) == 0);
    BOOST_TEST(std::isnan(gf::rsqrt(-one)));
    BOOST_TEST(gf::sqrt(S(2.25)) == S(1.5));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(exp_and_sigmoid_never_decrease, S, reals) {
    S exp_before = 0, sigmoid_before = 0;
    int decreases = 0;
    const S low = single<S> ? -90 : -712;
    for (int i = 0; i <= 400000; ++i) {
        const S x = low - low * static_cast<S>(i) * static_cast<S>(1.0 / 200000);
        decreases += gf::exp(x) < exp_before || gf::sigmoid(x) < sigmoid_before;
        exp_before = gf::exp(x);
        sigmoid_before = gf::sigmoid(x);
    }
    BOOST_TEST(decreases == 0);
}

BOOST_AUTO_TEST_CASE(fma_in_software_is_exact) {
    // Signs, exponents far apart and close together, subnormal results, ties: against the C library's.
    std::uint64_t state = 1;
    int wrong = 0;
    const auto draw = [&](std::uint32_t exponents) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        const auto random = static_cast<std::uint32_t>(state >> 32);
        const std::uint32_t mantissa = (state >> 20 & 3u) == 0 ? random & 0x7fe000u : random & 0x7fffffu;
        const std::uint32_t exponent = 127 - exponents / 2 + (random >> 23) % (exponents + 1);
        return std::bit_cast<float>((random & 0x80000000u) | exponent << 23 | mantissa);
    };
    for (int i = 0; i < 2000000; ++i) {
        const std::uint32_t spread = i % 3 == 0 ? 250 : i % 3 == 1 ? 60 : 4;
        const float a = draw(spread), b = draw(spread), c = draw(spread);
        const float exact = std::fma(a, b, c), ours = gf::detail::fma_in_software(a, b, c);
        wrong += std::bit_cast<std::uint32_t>(exact) != std::bit_cast<std::uint32_t>(ours);
    }
    for (const float special :
         {0.0f, -0.0f, infinity<float>, -infinity<float>, std::nanf(""), 0x1p-149f, 0x1.fffffep127f})
        for (const float b : {0.0f, -0.0f, 1.0f, -2.0f, infinity<float>, 0x1p-149f, 0x1.fffffep127f})
            for (const float c : {0.0f, -0.0f, 1.0f, infinity<float>, -infinity<float>, 0x1p-149f, -0x1.fffffep127f}) {
                const float exact = std::fma(special, b, c), ours = gf::detail::fma_in_software(special, b, c);
                wrong +=
                    std::isnan(exact) != std::isnan(ours) ||
                    (!std::isnan(exact) && std::bit_cast<std::uint32_t>(exact) != std::bit_cast<std::uint32_t>(ours));
            }
    BOOST_TEST(wrong == 0);
}

// Fused, the sums below would be the error of the product; apart, they are zero. A loop, since vectorisers fuse too.
BOOST_AUTO_TEST_CASE_TEMPLATE(products_are_kept_apart, S, reals) {
    constexpr int count = 64;
    S a[count], rounded[count], sums[count];
    for (int i = 0; i < count; ++i) {
        a[i] = 1 + static_cast<S>(i + 1) * std::numeric_limits<S>::epsilon();
        const volatile S product = a[i] * a[i];
        rounded[i] = -product;
    }
    for (int i = 0; i < count; ++i) sums[i] = gf::mul(a[i], a[i]) + rounded[i];
    int wrong = 0;
    for (const S sum : sums) wrong += sum != 0;
    BOOST_TEST(wrong == 0);
    BOOST_TEST(gf::fma(a[0], a[0], rounded[0]) ==
               std::numeric_limits<S>::epsilon() * std::numeric_limits<S>::epsilon());
}

#if defined(__x86_64__)
BOOST_AUTO_TEST_CASE_TEMPLATE(flush_to_zero_modes_change_nothing, S, reals) {
    int different = 0;
    const auto both = [&](auto f, S x) {
        const S usual = f(x);
        const unsigned mode = _mm_getcsr();
        _mm_setcsr(mode | 0x8040u);
        volatile S hidden = x;
        const volatile S flushed = f(hidden);
        _mm_setcsr(mode);
        different += std::abs(usual) >= std::numeric_limits<S>::min() && usual != flushed;
    };
    for_each_magnitude<S>(100000, [&](S x) {
        if (std::abs(x) < std::numeric_limits<S>::min()) return;
        both([](S v) { return gf::exp(v); }, x);
        both([](S v) { return gf::log(v); }, x);
        both([](S v) { return gf::log1p(v); }, x);
        both([](S v) { return gf::sigmoid(v); }, x);
        both([](S v) { return gf::tanh(v); }, x);
        both([](S v) { return gf::softplus(v); }, x);
        both([](S v) { return gf::erf(v); }, x);
    });
    BOOST_TEST(different == 0);
}
#endif

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
