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
