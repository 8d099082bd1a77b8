// ctest: heavy
// Counter-based random numbers: Philox's published answers, our layout by golden numbers, moments and distributions.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <set>
#include <vector>

#include <boost/mpl/list.hpp>
#include <boost/test/unit_test.hpp>

#include <gatefold/core/random.hpp>

namespace {

using gatefold::counter_rng;
using gatefold::purpose;
using gatefold::random_words;

using reals = boost::mpl::list<float, double>;

double normal_distribution(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

// The largest distance between the sample's distribution and `distribution` times sqrt(n): 1.95 is passed once in 1000.
template <class F>
double kolmogorov_smirnov(std::vector<double> sample, F distribution) {
    std::sort(sample.begin(), sample.end());
    double distance = 0;
    const auto n = static_cast<double>(sample.size());
    for (std::size_t i = 0; i < sample.size(); ++i) {
        const double p = distribution(sample[i]);
        distance = (std::max)({distance, p - static_cast<double>(i) / n, static_cast<double>(i + 1) / n - p});
    }
    return distance * std::sqrt(n);
}

template <class F>
std::vector<double> draw(int tokens, int indices, F f) {
    std::vector<double> sample;
    for (int t = 0; t < tokens; ++t)
        for (int i = 0; i < indices; ++i) sample.push_back(static_cast<double>(f(t, i)));
    return sample;
}

double moment(const std::vector<double>& sample, int order, double centre = 0) {
    double sum = 0;
    for (const double x : sample) sum += std::pow(x - centre, order);
    return sum / static_cast<double>(sample.size());
}

double correlation(const std::vector<double>& a, const std::vector<double>& b) {
    const double ma = moment(a, 1), mb = moment(b, 1);
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - ma) * (b[i] - mb);
    return sum / static_cast<double>(a.size()) / std::sqrt(moment(a, 2, ma) * moment(b, 2, mb));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(random)

// The known answers of the Random123 distribution (kat_vectors, philox4x32 10).
BOOST_AUTO_TEST_CASE(philox_gives_the_published_answers) {
    using gatefold::philox;
    static_assert(philox({0, 0, 0, 0}, 0, 0) == random_words{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
    constexpr std::uint32_t ones = 0xffffffffu;
    static_assert(philox({ones, ones, ones, ones}, ones, ones) ==
                  random_words{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
    BOOST_TEST((philox({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, 0xa4093822u, 0x299f31d0u) ==
                random_words{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

// Results of trained models hang on these numbers: a change of layout must not go unnoticed.
BOOST_AUTO_TEST_CASE(counter_layout) {
    constexpr counter_rng rng{0x0123456789abcdefu, 0x1122334455u, 37};
    constexpr gatefold::index_t token = (gatefold::index_t{5} << 32) + 7;
    constexpr random_words words =
        gatefold::philox({1000003 / 4, 7, 37u << 20 | 5u << 16 | 5u, 0x22334455u}, 0x89abcdefu, 0x01234567u);
    static_assert(rng.bits(purpose::dropout, token, 1000003) == words.d);
    static_assert(rng.bits(purpose::dropout, token, 1000000) == words.a);
    BOOST_TEST(rng.bits(purpose::dropout, token, 1000003) == 0xa759b14eu);
    BOOST_TEST((rng.uniform<float>(purpose::second_expert, 3, 1) == 0x1.1e73acp-2f));
    BOOST_TEST((rng.uniform<double>(purpose::second_expert, 3, 1) == 0x1.8b9b1bcefe176p-2));
    BOOST_TEST((rng.normal<float>(purpose::gaussian, 12, 5) == -0x1.50533ep-4f));
    BOOST_TEST((rng.normal<double>(purpose::gaussian, 12, 5) == -0x1.3e50ab0da1ef1p-1));
    BOOST_TEST((rng.gumbel<float>(purpose::gumbel, 12, 5) == 0x1.290d8p2f));
    BOOST_TEST((rng.gumbel<double>(purpose::gumbel, 12, 5) == 0x1.eea6e503aca4p1));
    BOOST_TEST((rng.truncated_normal<float>(purpose::initialisation, 2, 9) == -0x1.c8d4c6p-1f));
    BOOST_TEST((rng.truncated_normal<double>(purpose::initialisation, 2, 9) == -0x1.184e2660ccf01p-3));
    BOOST_TEST((rng.jitter<float>(9, 4, 0.01f) == 0x1.022ab4p0f));
}

BOOST_AUTO_TEST_CASE(draws_of_everything_that_differs_differ) {
    std::set<std::uint32_t> seen;
    int draws = 0;
    for (const std::uint64_t seed : {0u, 1u})
        for (const std::uint64_t step : {0u, 1u})
            for (const int layer : {0, 1, 4095})
                for (int p = 0; p <= static_cast<int>(purpose::initialisation); ++p)
                    for (const gatefold::index_t token : {0L, 1L, 1L << 32, 1L << 41})
                        for (const gatefold::index_t index : {0, 1, 2, 3, 4}) {
                            seen.insert(counter_rng{seed, step, layer}.bits(static_cast<purpose>(p), token, index));
                            ++draws;
                        }
    // Among 1680 words of 32 bits, a coincidence has the probability 0.0003.
    BOOST_TEST(static_cast<int>(seen.size()) == draws);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(uniform_is_uniform, S, reals) {
    const counter_rng rng{1, 2, 3};
    const auto open = draw(500, 400, [&](int t, int i) { return rng.uniform<S>(purpose::sampling, t, i); });
    const auto half_open =
        draw(500, 400, [&](int t, int i) { return rng.uniform_from_zero<S>(purpose::sampling, t, i); });
    for (const auto& sample : {open, half_open}) {
        BOOST_TEST(kolmogorov_smirnov(sample, [](double x) { return x; }) < 1.95);
        BOOST_TEST(std::fabs(moment(sample, 1) - 0.5) < 0.002);
        BOOST_TEST(std::fabs(moment(sample, 2, 0.5) - 1.0 / 12) < 0.001);
        BOOST_TEST(*std::max_element(sample.begin(), sample.end()) < 1.0);
    }
    BOOST_TEST(*std::min_element(open.begin(), open.end()) > 0.0);
    BOOST_TEST(*std::min_element(half_open.begin(), half_open.end()) >= 0.0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(normal_is_normal, S, reals) {
    const counter_rng rng{11, 0, 1};
    const auto sample = draw(500, 400, [&](int t, int i) { return rng.normal<S>(purpose::gaussian, t, i); });
    BOOST_TEST(kolmogorov_smirnov(sample, normal_distribution) < 1.95);
    BOOST_TEST(std::fabs(moment(sample, 1)) < 0.008);
    BOOST_TEST(std::fabs(moment(sample, 2) - 1) < 0.011);
    BOOST_TEST(std::fabs(moment(sample, 3)) < 0.03);
    BOOST_TEST(std::fabs(moment(sample, 4) - 3) < 0.08);
    // Neighbours come from one radius: they must not depend on each other for it.
    std::vector<double> even, odd;
    for (std::size_t i = 0; i < sample.size(); i += 2) {
        even.push_back(sample[i] * sample[i]);
        odd.push_back(sample[i + 1] * sample[i + 1]);
    }
    BOOST_TEST(std::fabs(correlation(even, odd)) < 0.012);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(normals_are_the_normals_one_by_one, S, reals) {
    const counter_rng rng{5, 6, 7};
    constexpr int count = gatefold::detail::draws_per_counter<S>;
    for (int index = 0; index < 64; index += count) {
        S block[4];
        rng.normals<S>(purpose::initialisation, 3, index, block);
        for (int i = 0; i < count; ++i) BOOST_TEST(block[i] == rng.normal<S>(purpose::initialisation, 3, index + i));
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(cos_and_sin_are_within_an_epsilon, S, reals) {
    using word = gatefold::detail::draw_word<S>;
    double largest = 0;
    for (std::uint64_t i = 0; i < 100000; ++i) {
        const auto w = static_cast<word>(i * 0x9e3779b97f4a7c15u);
        const auto pair = gatefold::detail::cos_sin_of_turn<S>(w);
        const long double x =
            2 * std::numbers::pi_v<long double> * std::ldexp(static_cast<long double>(w), -8 * int{sizeof(S)});
        largest =
            (std::max)({largest, static_cast<double>(std::fabs(static_cast<long double>(pair.first) - std::cos(x))),
                        static_cast<double>(std::fabs(static_cast<long double>(pair.second) - std::sin(x)))});
    }
    BOOST_TEST(largest < static_cast<double>(std::numeric_limits<S>::epsilon()));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(truncated_normal_stays_within, S, reals) {
    const counter_rng rng{13, 0, 1};
    const auto sample =
        draw(300, 400, [&](int t, int i) { return rng.truncated_normal<S>(purpose::initialisation, t, i); });
    const double low = normal_distribution(-2), kept = 1 - 2 * low;
    BOOST_TEST(kolmogorov_smirnov(sample, [&](double x) { return (normal_distribution(x) - low) / kept; }) < 1.95);
    BOOST_TEST(*std::max_element(sample.begin(), sample.end()) <= 2.0);
    BOOST_TEST(*std::min_element(sample.begin(), sample.end()) >= -2.0);
    BOOST_TEST(std::fabs(moment(sample, 2) - 0.7737) < 0.01);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(gumbel_is_gumbel, S, reals) {
    const counter_rng rng{17, 0, 1};
    const auto sample = draw(500, 400, [&](int t, int i) { return rng.gumbel<S>(purpose::gumbel, t, i); });
    BOOST_TEST(kolmogorov_smirnov(sample, [](double x) { return std::exp(-std::exp(-x)); }) < 1.95);
    BOOST_TEST(std::fabs(moment(sample, 1) - std::numbers::egamma) < 0.01);
}

// argmax of logits + Gumbel noise is a draw from the softmax.
BOOST_AUTO_TEST_CASE(gumbel_samples_the_softmax) {
    const counter_rng rng{19, 0, 1};
    const double logits[4] = {0.5, -1.25, 2, 0.75};
    double sum = 0, counts[4] = {};
    for (const double z : logits) sum += std::exp(z);
    constexpr int draws = 40000;
    for (int t = 0; t < draws; ++t) {
        int best = 0;
        double value = -HUGE_VAL;
        for (int e = 0; e < 4; ++e)
            if (const double z = logits[e] + rng.gumbel<double>(purpose::sampling, t, e); z > value)
                value = z, best = e;
        counts[best] += 1;
    }
    double chi_square = 0;
    for (int e = 0; e < 4; ++e) {
        const double expected = draws * std::exp(logits[e]) / sum;
        chi_square += (counts[e] - expected) * (counts[e] - expected) / expected;
    }
    BOOST_TEST(chi_square < 16.3);  // 3 degrees of freedom: passed once in 1000
}

BOOST_AUTO_TEST_CASE(jitter_is_uniform_around_one) {
    const counter_rng rng{23, 0, 1};
    const auto sample = draw(200, 200, [&](int t, int i) { return rng.jitter<double>(t, i, 0.01); });
    BOOST_TEST(kolmogorov_smirnov(sample, [](double x) { return (x - 0.99) / 0.02; }) < 1.95);
}

BOOST_AUTO_TEST_CASE(purposes_layers_steps_and_seeds_are_independent) {
    const auto of = [](counter_rng rng, purpose p) {
        return draw(200, 200, [&](int t, int i) { return rng.uniform<float>(p, t, i); });
    };
    const auto base = of({1, 1, 1}, purpose::gaussian);
    for (int p = 0; p <= static_cast<int>(purpose::initialisation); ++p)
        if (static_cast<purpose>(p) != purpose::gaussian)
            BOOST_TEST(std::fabs(correlation(base, of({1, 1, 1}, static_cast<purpose>(p)))) < 0.02);
    BOOST_TEST(std::fabs(correlation(base, of({2, 1, 1}, purpose::gaussian))) < 0.02);
    BOOST_TEST(std::fabs(correlation(base, of({1, 2, 1}, purpose::gaussian))) < 0.02);
    BOOST_TEST(std::fabs(correlation(base, of({1, 1, 2}, purpose::gaussian))) < 0.02);
    const auto next_token = draw(200, 200, [](int t, int i) {
        return counter_rng{1, 1, 1}.uniform<float>(purpose::gaussian, t + 1, i);
    });
    BOOST_TEST(std::fabs(correlation(base, next_token)) < 0.02);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
