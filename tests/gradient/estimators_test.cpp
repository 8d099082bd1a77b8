// Gradients of whole layers in training by central differences in double: what a router learns from default vectors,
// dropout inside experts.
#include <cmath>
#include <cstddef>
#include <vector>

#include <tests/layer_comparison.hpp>

namespace {

namespace gf = gatefold;

constexpr gf::config small{.hidden = 9, .ffn = 5, .experts = 5, .top_k = 2, .bias = true};

/// A layer, tokens, and Σ dy y as the loss; more(t, h) is what the loss sees beside y.
template <class L>
struct problem {
    static constexpr gf::index_t tokens = 24;
    gf::context<gf::cpu> ctx{2};
    gf::weights<L> w = gf::make_weights<L>(ctx);
    gf::gradients<L> g = gf::make_gradients<L>(ctx);
    gf::tape<L> tape{ctx, tokens};
    gf::tensor<double, gf::dyn, gf::dyn> x{{tokens, L::hidden}}, y{{tokens, L::hidden}}, dy{{tokens, L::hidden}},
        dx{{tokens, L::hidden}};
    std::vector<std::int32_t> chosen;
    gf::batch<L> in;
    gf::options<L> o;

    explicit problem(gf::options<L> numbers = {}) : o(numbers) {
        comparison::fill(w, 31);
        comparison::fill(x, 32);
        comparison::fill(dy, 33);
        in.x = {x.data(), {tokens, L::hidden}};
        in.first_token = 1000;
        forward();
        if constexpr (!L::is_dense) {
            const auto ids = tape.routing().ids;
            chosen.assign(ids.data(), ids.data() + ids.size());
            in.chosen = {chosen.data(), {tokens, L::slots}};  // a choice has no gradient
        }
        gf::backward(ctx, w, in, tape, {dy.data(), {tokens, L::hidden}}, {dx.data(), {tokens, L::hidden}}, g, o);
    }

    void forward() { gf::forward(ctx, w, in, {y.data(), {tokens, L::hidden}}, tape, o); }

    template <class More>
    double loss(More more) {
        forward();
        double sum = 0;
        for (gf::index_t i = 0; i < y.size(); ++i)
            sum += dy.data()[i] * (y.data()[i] + more(i / L::hidden, static_cast<int>(i % L::hidden)));
        return sum;
    }

    template <class More>
    void check(const char* name, double* values, gf::index_t count, const double* gradient, More more) {
        for (gf::index_t i = 0; i < count; ++i) {
            const double here = values[i], step = 1e-6;
            values[i] = here + step;
            const double above = loss(more);
            values[i] = here - step;
            const double below = loss(more);
            values[i] = here;
            const double difference = (above - below) / (2 * step);
            BOOST_TEST(std::fabs(difference - gradient[i]) <= 1e-6 * (std::fmax)(1.0, std::fabs(gradient[i])),
                       name << " " << i << ": " << difference << " against " << gradient[i]);
        }
    }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(gradient)
BOOST_AUTO_TEST_SUITE(estimators)

BOOST_AUTO_TEST_CASE(default_vectors) {
    // The router's gradient is that of Σ <dy, p_i f_i(x)> over the chosen and Σ <dy, p_i v_i> over the others.
    using L = gf::layer<gf::with(small, &gf::config::router,
                                 gf::router_config{.bias = true, .learns_from = gf::estimator::default_vectors}),
                        double>;
    problem<L> p;
    const auto others = [&](gf::index_t t, int h) {
        const double* z = p.tape.routing().logits.row(t);
        double total = 0, sum = 0;
        for (int e = 0; e < L::experts; ++e) total += std::exp(z[e]);
        for (int e = 0; e < L::experts; ++e)
            if (e != p.chosen[std::size_t(2 * t)] && e != p.chosen[std::size_t(2 * t + 1)])
                sum += std::exp(z[e]) / total * p.w.default_vectors(e, h);
        return sum;
    };
    p.check("router", p.w.router.data(), p.w.router.size(), p.g.router.data(), others);
    p.check("router_bias", p.w.router_bias.data(), p.w.router_bias.size(), p.g.router_bias.data(), others);
    p.check("x", p.x.data(), p.x.size(), p.dx.data(), others);
    p.check("down", p.w.down.data(), p.w.down.size(), p.g.down.data(), others);
}

BOOST_AUTO_TEST_CASE(expert_dropout) {
    constexpr auto nothing = [](gf::index_t, int) { return 0.0; };
    using L = gf::layer<gf::with(small, &gf::config::dropout, 0.4f), double>;
    problem<L> p({.seed = 9, .step = 4, .training = true});
    const auto check = [&](const char* name, auto& slot, const auto& gradient) {
        p.check(name, slot.data(), slot.size(), gradient.data(), nothing);
    };
    gf::for_each_parameter(check, p.w, p.g);
    p.check("x", p.x.data(), p.x.size(), p.dx.data(), nothing);
}

BOOST_AUTO_TEST_CASE(dropout_in_a_dense_layer) {
    constexpr auto nothing = [](gf::index_t, int) { return 0.0; };
    using L = gf::layer<gf::config{.hidden = 6, .ffn = 11, .act = gf::activation::gelu_erf, .dropout = 0.25f}, double>;
    problem<L> p({.seed = 9, .training = true});
    const auto check = [&](const char* name, auto& slot, const auto& gradient) {
        p.check(name, slot.data(), slot.size(), gradient.data(), nothing);
    };
    gf::for_each_parameter(check, p.w, p.g);
    p.check("x", p.x.data(), p.x.size(), p.dx.data(), nothing);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
