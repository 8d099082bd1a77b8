// ctest: heavy
// Activations: golden values of the published formulas, slopes by finite differences, clamps at equality, special
// values.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include <boost/mpl/list.hpp>
#include <boost/test/unit_test.hpp>

#include <gatefold/ops/activation.hpp>

namespace {

namespace gf = gatefold;
using act = gf::activation;  // the suite is called activation

using reals = boost::mpl::list<float, double>;

template <class F>
void for_each_plain(F f) {
    f.template operator()<act::relu>("relu");
    f.template operator()<act::relu_squared>("relu_squared");
    f.template operator()<act::gelu_tanh>("gelu_tanh");
    f.template operator()<act::gelu_erf>("gelu_erf");
    f.template operator()<act::silu>("silu");
    f.template operator()<act::identity>("identity");
}

template <class F>
void for_each_gated(F f) {
    f.template operator()<act::swiglu>("swiglu");
    f.template operator()<act::geglu_tanh>("geglu_tanh");
    f.template operator()<act::geglu_erf>("geglu_erf");
    f.template operator()<act::reglu>("reglu");
    f.template operator()<act::bilinear>("bilinear");
    f.template operator()<act::clamped_swiglu>("clamped_swiglu");
    f.template operator()<act::limited_swiglu>("limited_swiglu");
    f.template operator()<act::situ>("situ");
}

// The formulas as they are published, in long double; z for what the formula calls a.
long double logistic(long double z) { return 1 / (1 + std::exp(-z)); }

long double plain(act a, long double z) {
    switch (a) {
        case act::swiglu:
        case act::silu:
            return z * logistic(z);
        case act::geglu_tanh:
        case act::gelu_tanh:
            return 0.5L * z * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0L)) * (z + 0.044715L * z * z * z)));
        case act::geglu_erf:
        case act::gelu_erf:
            return 0.5L * z * (1 + std::erf(z / std::sqrt(2.0L)));
        case act::reglu:
        case act::relu:
            return z > 0 ? z : 0;
        case act::relu_squared:
            return z > 0 ? z * z : 0;
        default:
            return z;
    }
}

long double gated(act a, long double g, long double u, long double limit) {
    const long double low = g < limit ? g : limit, within = u < -limit ? -limit : u > limit ? limit : u;
    switch (a) {
        case act::clamped_swiglu:
            return low * logistic(1.702L * low) * (within + 1);
        case act::limited_swiglu:
            return low * logistic(low) * within;
        case act::situ:
            return 4 * std::tanh(g / 4) * logistic(g) * 25 * std::tanh(u / 25);
        default:
            return plain(a, g) * u;
    }
}

// Only the clamped activations look at it.
template <class S>
constexpr S limit_for(act a) {
    return gf::is_limited(a) ? S(7) : S(0);
}

template <class S>
bool close(S value, long double exact, long double size) {
    const long double tolerance = 6 * static_cast<long double>(std::numeric_limits<S>::epsilon());
    return std::fabs(static_cast<long double>(value) - exact) <= tolerance * (std::fabs(exact) + size);
}

bool near(double a, double b, double tolerance = 1e-9) {
    return std::fabs(a - b) <= tolerance * (std::max)(1.0, std::fabs(b));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(activation)

BOOST_AUTO_TEST_CASE(golden_values) {
    const auto gpt_oss = [](double g, double u) { return gf::activate<act::clamped_swiglu>(g, u, 7.0); };
    BOOST_TEST(near(gpt_oss(0.5, -0.25), 0.262791327));
    BOOST_TEST(near(gpt_oss(9, 8), 55.999625026));
    BOOST_TEST(near(gpt_oss(-3, -9), 0.108427858));
    BOOST_TEST(near(gpt_oss(1, 0), 0.845795766));
    BOOST_TEST(near(gf::activate<act::limited_swiglu>(12.0, -11.0, 10.0), -99.995460213));
    BOOST_TEST(near(gf::activate<act::situ>(1.5, -2.0, 0.0), -2.338883408));
    BOOST_TEST(near(gf::activate<act::silu>(1.0, 0.0), 0.731058579));
    BOOST_TEST(near(gf::activate<act::gelu_erf>(1.0, 0.0), 0.841344746));
    BOOST_TEST(near(gf::activate<act::gelu_tanh>(1.0, 0.0), 0.841191991));
    BOOST_TEST(gf::activate<act::relu_squared>(-3.0, 0.0) == 0.0);
    BOOST_TEST(gf::activate<act::relu_squared>(3.0, 0.0) == 9.0);
    BOOST_TEST(gf::activate<act::bilinear>(3.0, -2.0, 0.0) == -6.0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(values_are_those_of_the_formula, S, reals) {
    for_each_plain([]<act A>(const char* name) {
        int wrong = 0;
        for (int i = -3000; i <= 3000; ++i) {
            const S x = static_cast<S>(i) / 100;
            // gelu_erf cancels where x is negative: its error is that of x.
            wrong += !close(gf::activate<A>(x, S(0)), plain(A, static_cast<long double>(x)),
                            A == act::gelu_erf && x < 0 ? -static_cast<long double>(x)
                            : A == act::gelu_tanh       ? 1e-3L
                                                        : 0.0L);
        }
        BOOST_TEST(wrong == 0, name << ": " << wrong);
    });
    for_each_gated([]<act A>(const char* name) {
        int wrong = 0;
        for (int i = -150; i <= 150; ++i)
            for (int j = -60; j <= 60; ++j) {
                const S g = static_cast<S>(i) / 8, u = static_cast<S>(j) / 4;
                const long double up = std::fabs(static_cast<long double>(u));
                const long double size =
                    A == act::geglu_erf && g < 0 ? -up * static_cast<long double>(g) : 1e-3L * (up + 1);
                wrong += !close(gf::activate<A>(g, u, limit_for<S>(A)),
                                gated(A, static_cast<long double>(g), static_cast<long double>(u), 7), size);
            }
        BOOST_TEST(wrong == 0, name << ": " << wrong);
    });
}

// Central differences in double; points on the kinks (0, and a limit of 7) lie between the grid's.
BOOST_AUTO_TEST_CASE(gradients_are_slopes) {
    constexpr double h = 1e-6;
    for_each_plain([]<act A>(const char* name) {
        for (int i = -160; i < 160; ++i) {
            const double x = (i + 0.5) / 16, d = 1.75;
            const double slope = (gf::activate<A>(x + h, 0.0) - gf::activate<A>(x - h, 0.0)) / (2 * h);
            BOOST_TEST(near(gf::activate_backward<A>(x, d, 0.0), d * slope, 2e-8), name << " at " << x);
        }
    });
    for_each_gated([]<act A>(const char* name) {
        constexpr double limit = limit_for<double>(A), d = -1.25;
        for (int i = -40; i < 40; ++i)
            for (int j = -40; j < 40; ++j) {
                const double g = (i + 0.5) / 4, u = (j + 0.25) / 4;
                const auto gradient = gf::activate_backward<A>(g, u, d, limit);
                const double by_gate = (gf::activate<A>(g + h, u, limit) - gf::activate<A>(g - h, u, limit)) / (2 * h);
                const double by_up = (gf::activate<A>(g, u + h, limit) - gf::activate<A>(g, u - h, limit)) / (2 * h);
                BOOST_TEST(near(gradient.d_gate, d * by_gate, 1e-7), name << " gate at " << g << ", " << u);
                BOOST_TEST(near(gradient.d_up, d * by_up, 1e-7), name << " up at " << g << ", " << u);
            }
    });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(float_and_double_agree, S, reals) {
    for_each_gated([]<act A>(const char* name) {
        for (int i = -30; i <= 30; ++i)
            for (int j = -30; j <= 30; ++j) {
                const double g = i / 3.0, u = j / 3.0;
                const auto coarse =
                    gf::activate_backward<A>(static_cast<S>(g), static_cast<S>(u), S(1), limit_for<S>(A));
                const auto fine =
                    gf::activate_backward<A>(static_cast<double>(static_cast<S>(g)),
                                             static_cast<double>(static_cast<S>(u)), 1.0, limit_for<double>(A));
                BOOST_TEST(near(static_cast<double>(coarse.d_gate), fine.d_gate, 3e-6),
                           name << " at " << g << ", " << u);
                BOOST_TEST(near(static_cast<double>(coarse.d_up), fine.d_up, 3e-6), name << " at " << g << ", " << u);
            }
    });
}

// As torch's clamp: the gradient passes where the argument equals the limit.
BOOST_AUTO_TEST_CASE_TEMPLATE(clamps_pass_the_gradient_at_equality, S, reals) {
    const S seven = 7, above = std::nextafter(seven, S(8));
    const auto check = [&]<act A>(const char* name) {
        const auto at = gf::activate_backward<A>(seven, seven, S(1), seven);
        BOOST_TEST(at.d_gate != 0, name);
        BOOST_TEST(at.d_up != 0, name);
        BOOST_TEST((gf::activate_backward<A>(seven, -seven, S(1), seven).d_up) != 0, name);
        const auto beyond = gf::activate_backward<A>(above, above, S(1), seven);
        BOOST_TEST(beyond.d_gate == 0, name);
        BOOST_TEST(beyond.d_up == 0, name);
        BOOST_TEST((gf::activate_backward<A>(seven, -above, S(1), seven).d_up) == 0, name);
        // The gate has no lower limit; each clamp blocks its own argument only.
        BOOST_TEST((gf::activate_backward<A>(S(-8), S(1), S(1), seven).d_gate) != 0, name);
        BOOST_TEST((gf::activate_backward<A>(above, S(1), S(1), seven).d_up) != 0, name);
        BOOST_TEST((gf::activate_backward<A>(S(1), above, S(1), seven).d_gate) != 0, name);
    };
    check.template operator()<act::clamped_swiglu>("clamped_swiglu");
    check.template operator()<act::limited_swiglu>("limited_swiglu");
}

BOOST_AUTO_TEST_CASE_TEMPLATE(relu_has_slope_zero_at_zero, S, reals) {
    for (const S zero : {S(0), -S(0)}) {
        BOOST_TEST(gf::activate_backward<act::relu>(zero, S(3), S(0)) == 0);
        BOOST_TEST(gf::activate_backward<act::relu_squared>(zero, S(3), S(0)) == 0);
        BOOST_TEST((gf::activate_backward<act::reglu>(zero, S(2), S(3), S(0)).d_gate) == 0);
    }
    BOOST_TEST(gf::activate_backward<act::relu>(std::numeric_limits<S>::min(), S(3), S(0)) == 3);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(nan_in_nan_out, S, reals) {
    const S nan = std::numeric_limits<S>::quiet_NaN();
    for_each_plain([=]<act A>(const char* name) {
        BOOST_TEST(std::isnan(gf::activate<A>(nan, S(0))), name);
        BOOST_TEST((A == act::identity || std::isnan(gf::activate_backward<A>(nan, S(1), S(0)))), name);
        BOOST_TEST(std::isnan(gf::activate_backward<A>(S(1), nan, S(0))), name);
    });
    for_each_gated([=]<act A>(const char* name) {
        const S limit = limit_for<S>(A);
        BOOST_TEST(std::isnan(gf::activate<A>(nan, S(1), limit)), name);
        BOOST_TEST(std::isnan(gf::activate<A>(S(1), nan, limit)), name);
        const auto by_gate = gf::activate_backward<A>(nan, S(1), S(1), limit);
        BOOST_TEST((A == act::bilinear || std::isnan(by_gate.d_gate)), name);
        BOOST_TEST(std::isnan(by_gate.d_up), name);
        BOOST_TEST(std::isnan(gf::activate_backward<A>(S(1), nan, S(1), limit).d_gate), name);
        const auto by_out = gf::activate_backward<A>(S(1), S(1), nan, limit);
        BOOST_TEST(std::isnan(by_out.d_gate), name);
        BOOST_TEST(std::isnan(by_out.d_up), name);
    });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(huge_arguments_stay_numbers, S, reals) {
    const S inf = std::numeric_limits<S>::infinity(), huge = std::numeric_limits<S>::max() / 4;
    for_each_plain([=]<act A>(const char* name) {
        if constexpr (A != act::relu_squared) {
            BOOST_TEST(gf::activate<A>(huge, S(0)) == huge, name);
            BOOST_TEST(gf::activate_backward<A>(huge, S(2), S(0)) == 2, name);
            BOOST_TEST(gf::activate<A>(inf, S(0)) == inf, name);
        }
        if constexpr (A != act::identity) {
            BOOST_TEST(gf::activate<A>(-huge, S(0)) == 0, name);
            BOOST_TEST(gf::activate_backward<A>(-huge, S(2), S(0)) == 0, name);
        }
    });
    // The clamps bound what an outlier can do; the gate's lower side is a NaN at -inf as silu is.
    BOOST_TEST(gf::activate<act::clamped_swiglu>(inf, inf, S(7)) ==
               gf::activate<act::clamped_swiglu>(S(7), S(7), S(7)));
    BOOST_TEST(gf::activate<act::limited_swiglu>(inf, -inf, S(7)) ==
               gf::activate<act::limited_swiglu>(S(7), S(-7), S(7)));
    BOOST_TEST(std::isnan(gf::activate<act::silu>(-inf, S(0))));
    BOOST_TEST(gf::activate<act::situ>(inf, inf, S(0)) == 100);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
