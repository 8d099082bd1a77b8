// ctest: heavy timeout=600
// What routers learn from, and what experts read and return, in whole layers: against the oracle and against layers
// that compute the same otherwise.
#include <tests/layer_comparison.hpp>

namespace gf = gatefold;

namespace {

/// The gradient of the router's weights and of x, for random dy.
template <class L>
std::vector<double> gradients_of(const gf::weights<L>& w, gf::index_t tokens, std::vector<double>* y_out = nullptr) {
    gf::context<gf::cpu> ctx(2);
    const gf::index_t extents[2] = {tokens, L::hidden};
    gf::tensor<double, gf::dyn, gf::dyn> x(extents), y(extents), dy(extents), dx(extents);
    comparison::fill(x, 11);
    comparison::fill(dy, 12);
    gf::tape<L> tape(ctx, tokens);
    auto g = gf::make_gradients<L>(ctx);
    gf::batch<L> in;
    in.x = {x.data(), {tokens, L::hidden}};
    gf::forward(ctx, w, in, {y.data(), {tokens, L::hidden}}, tape);
    gf::backward(ctx, w, in, tape, {dy.data(), {tokens, L::hidden}}, {dx.data(), {tokens, L::hidden}}, g);
    if (y_out) y_out->assign(y.data(), y.data() + y.size());
    return {g.router.data(), g.router.data() + g.router.size()};
}

constexpr gf::config around(gf::router_config r, int top_k = 2) {
    gf::config c{.hidden = 14, .ffn = 6, .experts = 5, .top_k = top_k, .bias = true};
    c.router = r;
    return c;
}

/// One step of the default vectors against the mean of what the oracle's experts return, with padding, an expert that
/// gets nothing, and any number of threads.
template <class L>
void check_averages(gf::index_t tokens, double tolerance) {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    std::vector<A> first;
    for (int threads = 1; threads <= 3; ++threads) {
        gf::context<gf::cpu> ctx(threads);
        auto w = gf::make_weights<L>(ctx);
        comparison::fill(w, 21);
        gf::tensor<T, gf::dyn, gf::dyn> x({tokens, L::hidden}), y({tokens, L::hidden});
        comparison::fill(x, 22);
        std::vector<std::uint8_t> mask(static_cast<std::size_t>(tokens), 1);
        for (std::size_t t = 3; t < mask.size(); t += 4) mask[t] = 0;
        std::vector<std::int32_t> chosen;  // never expert 4
        for (gf::index_t t = 0; t < tokens; ++t)
            for (int s = 0; s < L::slots; ++s) chosen.push_back(static_cast<std::int32_t>((t * t + s) % 4));
        gf::batch<L> in;
        in.x = {x.data(), {tokens, L::hidden}};
        in.mask = {mask.data(), {tokens}};
        in.chosen = {chosen.data(), {tokens, L::slots}};
        const oracle::values before = bridge::values_of(w.default_vectors);
        gf::tape<L> tape(ctx, tokens + 2);
        gf::forward(ctx, w, in, {y.data(), {tokens, L::hidden}}, tape);
        gf::update(ctx, gf::output_average{.decay = 0.75}, w, in, tape);
        if (threads == 1) {
            first.assign(w.default_vectors.data(), w.default_vectors.data() + w.default_vectors.size());
            const oracle::layer l = bridge::layer_of(L::c);
            const oracle::parameters p = bridge::parameters_of(w);
            const oracle::values rows = bridge::values_of(x);
            for (std::size_t e = 0; e < 5; ++e) {
                oracle::values sum(L::hidden, 0.0);
                double count = 0;
                for (std::size_t i = 0; i < chosen.size(); ++i) {
                    const std::size_t t = i / std::size_t{L::slots};
                    if (chosen[i] != static_cast<int>(e) || mask[t] == 0) continue;
                    const auto o = oracle::expert_forward(l, p, e, rows.data() + t * L::hidden);
                    oracle::add_scaled(sum.data(), 1, o.data(), L::hidden);
                    ++count;
                }
                for (std::size_t h = 0; h < L::hidden; ++h) {
                    const double old = before[e * L::hidden + h];
                    const double expected = count > 0 ? 0.75 * old + 0.25 * sum[h] / count : old;
                    BOOST_TEST(std::fabs(double(first[e * L::hidden + h]) - expected) <= tolerance);
                }
            }
        }
        for (std::size_t i = 0; i < first.size(); ++i)
            BOOST_TEST(first[i] == w.default_vectors.data()[static_cast<gf::index_t>(i)]);
    }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(oracle)
BOOST_AUTO_TEST_SUITE(estimators)

BOOST_AUTO_TEST_CASE(all_experts) {
    constexpr gf::router_config softmax{.bias = true, .scale = 1.5, .learns_from = gf::estimator::all_experts};
    comparison::compare<gf::layer<around(softmax), double>>(71, 1);
    comparison::compare<gf::layer<around(softmax), float>>(33, 2, 3);
    comparison::compare<gf::layer<around(softmax, 1), gf::bf16>>(40, 3);
    constexpr gf::config sigmoid = gf::with(around(gf::with(softmax, &gf::router_config::from, gf::score::sigmoid)),
                                            &gf::config::shared, gf::shared_config{.ffn = 3});
    comparison::compare<gf::layer<sigmoid, double>>(7, 4);
}

BOOST_AUTO_TEST_CASE(learning_from_all_is_the_gradient_of_choosing_all) {
    using sparse = gf::layer<around({.learns_from = gf::estimator::all_experts}), double>;
    using every = gf::layer<around(gf::routers::every, 1), double>;
    gf::context<gf::cpu> ctx(1);
    auto a = gf::make_weights<sparse>(ctx);
    auto b = gf::make_weights<every>(ctx);
    comparison::fill(a, 5);
    comparison::fill(b, 5);
    const auto mine = gradients_of(a, 50), theirs = gradients_of(b, 50);
    for (std::size_t i = 0; i < mine.size(); ++i) BOOST_TEST(std::fabs(mine[i] - theirs[i]) <= 1e-12);
}

BOOST_AUTO_TEST_CASE(default_vectors) {
    constexpr gf::router_config softmax{.bias = true, .scale = 1.5, .learns_from = gf::estimator::default_vectors};
    comparison::compare<gf::layer<around(softmax), double>>(71, 1);
    comparison::compare<gf::layer<around(softmax), float>>(33, 2, 3);
    comparison::compare<gf::layer<around(softmax, 1), gf::bf16>>(40, 3);
    constexpr gf::config sigmoid = gf::with(around(gf::with(softmax, &gf::router_config::from, gf::score::sigmoid)),
                                            &gf::config::shared, gf::shared_config{.ffn = 3});
    comparison::compare<gf::layer<sigmoid, double>>(7, 4);
}

BOOST_AUTO_TEST_CASE(averages_of_outputs) {
    check_averages<gf::layer<around({.learns_from = gf::estimator::default_vectors}), double>>(60, 1e-13);
    check_averages<gf::layer<around({.learns_from = gf::estimator::default_vectors}), float>>(300, 2e-6);
    constexpr gf::config plain{.hidden = 14,
                               .ffn = 19,
                               .experts = 5,
                               .top_k = 2,
                               .act = gf::activation::relu_squared,
                               .router = {.learns_from = gf::estimator::default_vectors}};
    check_averages<gf::layer<plain, double>>(60, 1e-13);
    check_averages<gf::layer<plain, gf::bf16>>(60, 1e-2);
}

BOOST_AUTO_TEST_CASE(averages_that_cannot_be) {
    using L = gf::layer<around({.learns_from = gf::estimator::default_vectors}), float>;
    gf::context<gf::cpu> ctx(1);
    auto w = gf::random_weights<L>(ctx, gf::seed{3});
    std::vector<float> x(6 * L::hidden, 0.5f), y(x);
    std::vector<std::uint8_t> mask(5, 1);
    gf::tape<L> tape(ctx, 6);
    gf::batch<L> in;
    in.x = {x.data(), {6, L::hidden}};
    gf::forward(ctx, w, in, {y.data(), {6, L::hidden}}, tape);
    BOOST_CHECK_THROW(gf::update(ctx, gf::output_average{1.5}, w, in, tape), gf::argument_error);
    BOOST_CHECK_THROW(gf::update(ctx, gf::output_average{-0.1}, w, in, tape), gf::argument_error);
    in.mask = {mask.data(), {5}};
    BOOST_CHECK_THROW(gf::update(ctx, gf::output_average{}, w, in, tape), gf::argument_error);
    in.mask = {};
    in.x = {x.data(), {4, L::hidden}};
    BOOST_CHECK_THROW(gf::update(ctx, gf::output_average{}, w, in, tape), gf::argument_error);
    for (gf::index_t i = 0; i < w.default_vectors.size(); ++i) BOOST_TEST(w.default_vectors.data()[i] == 0);
    in.x = {x.data(), {6, L::hidden}};
    gf::update(ctx, gf::output_average{}, w, in, tape);
    double largest = 0;
    for (gf::index_t i = 0; i < w.default_vectors.size(); ++i)
        largest = (std::max)(largest, std::fabs(double(w.default_vectors.data()[i])));
    BOOST_TEST(largest > 0);
}

BOOST_AUTO_TEST_CASE(straight_through) {
    // Forward the mean of nothing: whole experts. Backward the gradient of the scores times whole experts' outputs.
    constexpr gf::router_config plain{.bias = true, .from = gf::score::sigmoid};
    using through =
        gf::layer<around(gf::with(plain, &gf::router_config::learns_from, gf::estimator::straight_through)), double>;
    using chosen = gf::layer<around(plain), double>;
    gf::context<gf::cpu> ctx(1);
    auto a = gf::make_weights<through>(ctx);
    auto b = gf::make_weights<chosen>(ctx);
    comparison::fill(a, 6);
    comparison::fill(b, 6);
    // The gradient of the scores does not depend on the weights: it is that of the plain router.
    std::vector<double> y, other;
    const auto mine = gradients_of(a, 30, &y), theirs = gradients_of(b, 30, &other);
    for (std::size_t i = 0; i < mine.size(); ++i) BOOST_TEST(std::fabs(mine[i] - theirs[i]) <= 1e-13);
    // The oracle's experts with weight 1.
    oracle::layer l = bridge::layer_of(through::c);
    l.router.score = oracle::score_kind::one;
    l.router.key = oracle::key_kind::logit;
    oracle::batch in;
    in.tokens = 30;
    gf::tensor<double, gf::dyn, gf::dyn> x({30, 14});
    comparison::fill(x, 11);
    in.x = bridge::values_of(x);
    const auto r = oracle::forward(l, bridge::parameters_of(a), in);
    for (std::size_t i = 0; i < y.size(); ++i) BOOST_TEST(std::fabs(y[i] - r.y[i]) <= 1e-12);
}

BOOST_AUTO_TEST_CASE(blends_and_multiples) {
    constexpr gf::config base =
        gf::with(around(gf::routers::base, 1), &gf::config::shared, gf::shared_config{.ffn = 4});
    comparison::compare<gf::layer<base, double>>(31, 7);
    comparison::compare<gf::layer<base, float>>(31, 8, 3);
    comparison::compare<gf::layer<base, gf::bf16>>(64, 9);
    constexpr gf::config plus =
        gf::with(around(gf::routers::moe_plus_plus, 3), &gf::config::free, gf::free_experts{.constant = 2, .copy = 1});
    comparison::compare<gf::layer<plus, double>>(31, 10);
    comparison::compare<gf::layer<plus, float>>(31, 11);
    comparison::compare<
        gf::layer<gf::with(around(gf::with(gf::routers::minimax_m3, &gf::router_config::input_times_k, true)),
                           &gf::config::latent, 6, &gf::config::latent_norm, true),
                  double>>(31, 12);
    constexpr gf::config mesh = around(gf::routers::mesh_expert_choice);
    comparison::compare<gf::layer<mesh, double>>(20, 13);
    comparison::compare<gf::layer<mesh, float>>(20, 14);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
