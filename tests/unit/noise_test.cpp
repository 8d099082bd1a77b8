// ctest: heavy
// The noise of routers: off at inference, distributed as it should be, never shared between purposes, layers or steps.
#include <cmath>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>

namespace {

namespace gf = gatefold;

/// A router of H inputs that sees `x` ones and whose weights are `size`, over T tokens.
template <gf::config C>
struct run {
    using L = gf::layer<C, double>;
    gf::context<gf::cpu> ctx{1};
    gf::index_t tokens;
    gf::weights<L> w = gf::make_weights<L>(ctx);
    gf::tensor<std::int32_t, gf::dyn, L::slots> ids;
    gf::tensor<double, gf::dyn, L::slots> weights;
    gf::tensor<double, gf::dyn, L::choices> logits;
    gf::tensor<double, gf::dyn, L::hidden> x;
    gf::options<L> o;

    explicit run(gf::index_t count)
        : tokens(count),
          ids(gf::make_tensor<std::int32_t, gf::dyn, L::slots>(ctx, count)),
          weights(gf::make_tensor<double, gf::dyn, L::slots>(ctx, count)),
          logits(gf::make_tensor<double, gf::dyn, L::choices>(ctx, count)),
          x(gf::make_tensor<double, gf::dyn, L::hidden>(ctx, count)) {
        for (gf::index_t i = 0; i < x.size(); ++i) x.data()[i] = 1;
        o.training = true;
        o.seed = 42;
    }
    void operator()() { gf::route(ctx, w, {.x = x.view()}, {ids.view(), weights.view(), logits.view()}, o); }
};

struct moments {
    double mean = 0, variance = 0, skew = 0, least = 1e300, most = -1e300;
    template <class T>
    explicit moments(const T& values) {
        const double n = static_cast<double>(values.size());
        for (gf::index_t i = 0; i < values.size(); ++i) {
            mean += values.data()[i] / n;
            least = values.data()[i] < least ? values.data()[i] : least;
            most = values.data()[i] > most ? values.data()[i] : most;
        }
        for (gf::index_t i = 0; i < values.size(); ++i) {
            const double d = values.data()[i] - mean;
            variance += d * d / n;
            skew += d * d * d / n;
        }
        skew /= std::pow(variance, 1.5);
    }
};

constexpr gf::config config_of(gf::router_config r, int experts = 10, int k = 2, int hidden = 1) {
    return {.hidden = hidden, .ffn = 1, .experts = experts, .top_k = k, .router = r};
}

template <gf::router_config R, int K = 2>
void off_at_inference() {
    run<config_of(R, 10, K, 5)> noisy(40), quiet(40), other(40);
    const auto fill = [](const char*, auto& slot) {
        for (gf::index_t i = 0; i < slot.size(); ++i) slot.data()[i] = std::sin(1.0 + 3.7 * double(i));
    };
    gf::for_each_parameter(fill, noisy.w);
    gf::for_each_parameter(fill, quiet.w);
    gf::for_each_parameter(fill, other.w);
    quiet.o.training = other.o.training = false;
    other.o.seed = 43;
    noisy();
    quiet();
    other();
    bool same = true, differs = false;
    for (gf::index_t i = 0; i < quiet.weights.size(); ++i) {
        same = same && quiet.weights.data()[i] == other.weights.data()[i] && quiet.ids.data()[i] == other.ids.data()[i];
        differs = differs || quiet.weights.data()[i] != noisy.weights.data()[i];
    }
    BOOST_TEST(same);
    BOOST_TEST(differs);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(noise)

BOOST_AUTO_TEST_CASE(training_only) {
    using namespace gf::routers;
    off_at_inference<switch_transformer, 1>();
    off_at_inference<noisy_top_k>();
    off_at_inference<v_moe>();
    off_at_inference<sampled>();
    off_at_inference<phi_moe>();
    off_at_inference<nllb_sampling>();
    off_at_inference<nllb_random>();
    off_at_inference<with(olmoe, &gf::router_config::noise, 0.2f, &gf::router_config::noise_on,
                          gf::input_noise::dropout)>();
    off_at_inference<with(mixtral, &gf::router_config::noise, 0.2f, &gf::router_config::noise_on,
                          gf::input_noise::shared_jitter)>();
    off_at_inference<with(olmoe, &gf::router_config::transform, gf::logit_transform::gumbel, &gf::router_config::noise,
                          1)>();
}

BOOST_AUTO_TEST_CASE(jitter_is_uniform) {
    run<config_of(with(gf::routers::switch_transformer, &gf::router_config::noise, 0.25f), 2, 1)> r(40000);
    r.w.router(0, 0) = 1;  // the first logit is the jittered input, the second zero
    r();
    auto first = gf::make_tensor<double, gf::dyn>(r.ctx, r.tokens);
    for (gf::index_t t = 0; t < r.tokens; ++t) first.data()[t] = r.logits(t, 0);
    const moments m(first);
    BOOST_TEST(std::fabs(m.mean - 1) < 0.003);
    BOOST_TEST(std::fabs(m.variance - 0.25 * 0.25 / 3) < 0.0005);
    BOOST_TEST(m.least >= 0.75);
    BOOST_TEST(m.most <= 1.25);
    BOOST_TEST(m.least < 0.751);
    BOOST_TEST(m.most > 1.249);
}

BOOST_AUTO_TEST_CASE(jitter_twice_is_a_product_of_two) {
    run<config_of(with(gf::routers::mixtral, &gf::router_config::noise, 0.25f, &gf::router_config::noise_on,
                       gf::input_noise::shared_jitter_twice),
                  2, 2)>
        r(40000);
    r.w.router(0, 0) = 1;
    r();
    auto first = gf::make_tensor<double, gf::dyn>(r.ctx, r.tokens);
    for (gf::index_t t = 0; t < r.tokens; ++t) first.data()[t] = r.logits(t, 0);
    const moments m(first);
    // (1 + v)² - 1 for v the variance of one factor; independent factors reach both products of their ends.
    const double v = 0.25 * 0.25 / 3;
    BOOST_TEST(std::fabs(m.mean - 1) < 0.004);
    BOOST_TEST(std::fabs(m.variance - ((1 + v) * (1 + v) - 1)) < 0.001);
    BOOST_TEST(m.least < 0.58);
    BOOST_TEST(m.most > 1.53);
}

BOOST_AUTO_TEST_CASE(dropout_keeps_the_mean) {
    run<config_of(with(gf::routers::olmoe, &gf::router_config::noise, 0.3f, &gf::router_config::noise_on,
                       gf::input_noise::dropout),
                  2, 1, 2)>
        r(40000);
    r.w.router(0, 0) = 1;  // the logits are the two elements of the input
    r.w.router(1, 1) = 1;
    r();
    double dropped[2] = {}, both = 0;
    const double kept = 1 / (1 - static_cast<double>(0.3f));
    for (gf::index_t t = 0; t < r.tokens; ++t) {
        for (int h = 0; h < 2; ++h) {
            BOOST_TEST_REQUIRE((r.logits(t, h) == 0 || std::fabs(r.logits(t, h) - kept) < 1e-12));
            dropped[h] += r.logits(t, h) == 0 ? 1.0 / static_cast<double>(r.tokens) : 0.0;
        }
        both += r.logits(t, 0) == 0 && r.logits(t, 1) == 0 ? 1.0 / static_cast<double>(r.tokens) : 0.0;
    }
    BOOST_TEST(std::fabs(dropped[0] - 0.3) < 0.01);
    BOOST_TEST(std::fabs(dropped[1] - 0.3) < 0.01);
    BOOST_TEST(std::fabs(both - 0.09) < 0.01);  // elements are dropped by themselves
}

BOOST_AUTO_TEST_CASE(experts_see_the_jitter_that_they_share) {
    constexpr gf::router_config shares = with(gf::routers::mixtral, &gf::router_config::noise, 0.25f,
                                              &gf::router_config::noise_on, gf::input_noise::shared_jitter);
    using L = gf::layer<
        gf::config{
            .hidden = 6, .ffn = 5, .experts = 4, .top_k = 2, .router = shares, .shared = {.ffn = 3, .gate = true}},
        float>;
    gf::context<gf::cpu> ctx(2);
    const auto w = gf::random_weights<L>(ctx, gf::seed{4});
    const gf::index_t tokens = 21;
    std::vector<float> x(static_cast<std::size_t>(tokens * 6)), moved = x, y = x, other = x;
    gf::options<L> o{.seed = 9, .step = 2, .layer = 1, .training = true};
    const gf::counter_rng draw{o.seed, o.step, static_cast<int>(o.layer)};
    for (gf::index_t i = 0; i < tokens * 6; ++i) {
        const auto at = static_cast<std::size_t>(i);
        x[at] = static_cast<float>((i * 29 % 17) - 8) / 7;
        moved[at] = x[at] * draw.jitter<float>(100 + i / 6, i % 6, 0.25f);
    }
    gf::batch<L> in;
    in.x = {x.data(), {tokens, 6}};
    in.first_token = 100;
    gf::forward(ctx, w, in, {y.data(), {tokens, 6}}, o);
    gf::forward(ctx, w, {moved.data(), {tokens, 6}}, {other.data(), {tokens, 6}}, {.training = false});
    BOOST_TEST((y == other));
}

BOOST_AUTO_TEST_CASE(normal_noise) {
    run<config_of(gf::routers::v_moe)> r(6000);  // N(0, (1/E)^2)
    r();
    const moments m(r.logits);
    BOOST_TEST(std::fabs(m.mean) < 0.002);
    BOOST_TEST(std::fabs(m.variance - 0.01) < 0.0003);
    BOOST_TEST(std::fabs(m.skew) < 0.05);
}

BOOST_AUTO_TEST_CASE(learned_deviation) {
    run<config_of(gf::routers::noisy_top_k)> r(6000);
    for (int e = 0; e < 10; ++e) r.w.router_noise(e, 0) = 0.5;
    r();
    const double deviation = std::log1p(std::exp(0.5)) + 0.01;
    const moments m(r.logits);
    BOOST_TEST(std::fabs(m.mean) < 0.02);
    BOOST_TEST(std::fabs(m.variance / (deviation * deviation) - 1) < 0.03);
}

BOOST_AUTO_TEST_CASE(gumbel_noise) {
    run<config_of(with(gf::routers::olmoe, &gf::router_config::transform, gf::logit_transform::gumbel,
                       &gf::router_config::noise, 2))>
        r(6000);
    r();
    const moments m(r.logits);
    BOOST_TEST(std::fabs(m.mean - 2 * 0.5772156649) < 0.05);
    BOOST_TEST(std::fabs(m.variance - 4 * 1.6449340668) < 0.2);
    BOOST_TEST(std::fabs(m.skew - 1.1395) < 0.1);
}

BOOST_AUTO_TEST_CASE(samples_follow_the_softmax) {
    run<config_of(gf::routers::sampled, 4, 1)> r(40000);
    const double logits[] = {0, 1, 2, -1};
    double total = 0;
    for (int e = 0; e < 4; ++e) {
        r.w.router(e, 0) = logits[e];
        total += std::exp(logits[e]);
    }
    r();
    double count[4] = {};
    for (gf::index_t t = 0; t < r.tokens; ++t) count[r.ids(t, 0)] += 1.0 / static_cast<double>(r.tokens);
    for (int e = 0; e < 4; ++e) BOOST_TEST(std::fabs(count[e] - std::exp(logits[e]) / total) < 0.01);
}

BOOST_AUTO_TEST_CASE(temperature_flattens_the_samples) {
    run<config_of(with(gf::routers::sampled, &gf::router_config::noise, 2.0f), 4, 1)> r(40000);
    const double logits[] = {0, 1, 2, -1};
    double total = 0;
    for (int e = 0; e < 4; ++e) {
        r.w.router(e, 0) = logits[e];
        total += std::exp(logits[e] / 2);
    }
    r();
    double count[4] = {};
    for (gf::index_t t = 0; t < r.tokens; ++t) count[r.ids(t, 0)] += 1.0 / static_cast<double>(r.tokens);
    for (int e = 0; e < 4; ++e) BOOST_TEST(std::fabs(count[e] - std::exp(logits[e] / 2) / total) < 0.01);
}

BOOST_AUTO_TEST_CASE(picks_of_the_sparse_mixer) {
    // Tolerance 2 · 0.2: from logits 1, .9, .7, .3 the first three are near enough; the pick is a draw of their
    // softmax.
    run<config_of(with(gf::routers::phi_moe, &gf::router_config::noise, 0.2f, &gf::router_config::noise_on,
                       gf::input_noise::jitter),
                  4, 2)>
        r(40000);
    const double logits[] = {1, 0.9, 0.7, 0.3};
    for (int e = 0; e < 4; ++e) r.w.router(e, 0) = logits[e];
    r();
    double count[4] = {}, expected[4] = {};
    for (gf::index_t t = 0; t < r.tokens; ++t) {
        count[r.ids(t, 0)] += 1.0 / static_cast<double>(r.tokens);
        // The jitter scales a token's logits: its own softmax is the one that is drawn from.
        double total = 0;
        for (int e = 0; e < 3; ++e) total += std::exp(r.logits(t, e));
        for (int e = 0; e < 3; ++e) expected[e] += std::exp(r.logits(t, e)) / total / static_cast<double>(r.tokens);
    }
    for (int e = 0; e < 4; ++e) BOOST_TEST(std::fabs(count[e] - expected[e]) < 0.01);
}

BOOST_AUTO_TEST_CASE(uniform_experts) {
    run<config_of(gf::routers::uniform, 5, 2)> r(20000);
    r();
    double pair[5][5] = {};
    for (gf::index_t t = 0; t < r.tokens; ++t) {
        BOOST_TEST_REQUIRE((r.ids(t, 0) != r.ids(t, 1)));
        pair[r.ids(t, 0)][r.ids(t, 1)] += 1.0 / static_cast<double>(r.tokens);
        BOOST_TEST_REQUIRE(r.weights(t, 0) == 0.5);
    }
    for (int a = 0; a < 5; ++a)
        for (int b = 0; b < 5; ++b)
            if (a != b) BOOST_TEST(std::fabs(pair[a][b] - 0.05) < 0.007);
}

BOOST_AUTO_TEST_CASE(second_experts_stay_by_their_weight) {
    // p = (.8, .15, ...): the second has weight .15/.95 and stays with probability that over .2.
    constexpr gf::router_config gshard = gf::routers::gshard;
    run<config_of(gshard, 3, 2)> r(20000);
    const double p[] = {0.8, 0.15, 0.05};
    for (int e = 0; e < 3; ++e) r.w.router(e, 0) = std::log(p[e]);
    r();
    double stays = 0;
    for (gf::index_t t = 0; t < r.tokens; ++t) {
        stays += r.ids(t, 1) >= 0 ? 1.0 / static_cast<double>(r.tokens) : 0.0;
        BOOST_TEST_REQUIRE((r.ids(t, 1) >= 0) == (r.weights(t, 1) > 0));
        BOOST_TEST_REQUIRE(std::fabs(r.weights(t, 0) - 0.8 / 0.95) < 1e-8);  // divided before the second left
    }
    BOOST_TEST(std::fabs(stays - 0.15 / 0.95 / 0.2) < 0.02);

    run<config_of(gf::routers::nllb_random, 3, 2)> n(20000);
    for (int e = 0; e < 3; ++e) n.w.router(e, 0) = std::log(p[e]);
    n();
    stays = 0;
    for (gf::index_t t = 0; t < n.tokens; ++t) stays += n.ids(t, 1) >= 0 ? 1.0 / static_cast<double>(n.tokens) : 0.0;
    BOOST_TEST(std::fabs(stays - 2 * 0.15) < 0.02);

    run<config_of(gf::routers::nllb_sampling, 3, 2)> s(20000);
    for (int e = 0; e < 3; ++e) s.w.router(e, 0) = std::log(p[e]);
    s();
    double second = 0;
    for (gf::index_t t = 0; t < s.tokens; ++t) {
        BOOST_TEST_REQUIRE(s.ids(t, 0) == 0);
        second += s.ids(t, 1) == 1 ? 1.0 / static_cast<double>(s.tokens) : 0.0;
    }
    BOOST_TEST(std::fabs(second - 0.75) < 0.02);
}

BOOST_AUTO_TEST_CASE(seeds_steps_and_layers_differ) {
    const auto first_logits = [](std::uint64_t seed, std::uint32_t step, std::uint32_t layer) {
        run<config_of(gf::routers::v_moe)> r(3);
        r.o.seed = seed;
        r.o.step = step;
        r.o.layer = layer;
        r();
        return std::vector<double>(r.logits.data(), r.logits.data() + r.logits.size());
    };
    const auto base = first_logits(1, 2, 3);
    BOOST_TEST((base == first_logits(1, 2, 3)));
    BOOST_TEST((base != first_logits(2, 2, 3)));
    BOOST_TEST((base != first_logits(1, 3, 3)));
    BOOST_TEST((base != first_logits(1, 2, 4)));
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
