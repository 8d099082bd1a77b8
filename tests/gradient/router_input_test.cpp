// A router that reads something else than the experts do (batch::router_x): its input has a gradient of its own.
#include <cmath>
#include <cstring>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>

namespace gf = gatefold;

namespace {

using layer =
    gf::layer<gf::config{.hidden = 5, .ffn = 3, .experts = 4, .top_k = 2, .router = gf::routers::gemma4}, double>;
constexpr gf::index_t tokens = 6;

struct problem {
    gf::context<gf::cpu> ctx{1};
    gf::weights<layer> w = gf::random_weights<layer>(ctx, gf::seed{3});
    using rows = gf::tensor<double, gf::dyn, layer::hidden>;
    rows x = make(), router_x = make(), y = make(), dy = make(), dx = make(), d_router_x = make();
    gf::tape<layer> tape{ctx, tokens};
    gf::gradients<layer> g = gf::make_gradients<layer>(ctx);

    rows make() { return gf::make_tensor<double, gf::dyn, layer::hidden>(ctx, tokens); }
    problem() {
        const gf::counter_rng random{5};
        for (gf::index_t i = 0; i < x.size(); ++i) {
            x.data()[i] = random.uniform<double>(gf::purpose::sampling, i, 0) - 0.5;
            router_x.data()[i] = random.uniform<double>(gf::purpose::sampling, i, 1) - 0.5;
            dy.data()[i] = random.uniform<double>(gf::purpose::sampling, i, 2) - 0.5;
        }
    }
    double loss() {
        gf::forward(ctx, w, {.x = x.view(), .router_x = router_x.view()}, y.view(), tape);
        double sum = 0;
        for (gf::index_t i = 0; i < y.size(); ++i) sum += y.data()[i] * dy.data()[i];
        return sum;
    }
    void check(const char* name, rows& values, const rows& gradient) {
        for (gf::index_t i = 0; i < values.size(); ++i) {
            const double old = values.data()[i], step = 1e-6;
            values.data()[i] = old + step;
            const double above = loss();
            values.data()[i] = old - step;
            const double below = loss();
            values.data()[i] = old;
            const double slope = (above - below) / (2 * step);
            BOOST_TEST(std::fabs(gradient.data()[i] - slope) <= 1e-6 * (std::fabs(slope) + 0.1),
                       name << "[" << i << "]");
        }
    }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(gradient)
BOOST_AUTO_TEST_SUITE(router_input)

BOOST_AUTO_TEST_CASE(what_the_router_reads_has_a_gradient_of_its_own) {
    problem p;
    p.loss();
    gf::batch<layer> in{.x = p.x.view(), .router_x = p.router_x.view(), .router_x_gradients = p.d_router_x.view()};
    gf::backward(p.ctx, p.w, in, p.tape, p.dy.view(), p.dx.view(), p.g);
    p.check("x", p.x, p.dx);
    p.check("router_x", p.router_x, p.d_router_x);
}

BOOST_AUTO_TEST_CASE(it_may_be_left_out_and_never_reaches_dx) {
    problem p;
    p.loss();
    auto first = p.make();
    gf::batch<layer> in{.x = p.x.view(), .router_x = p.router_x.view(), .router_x_gradients = p.d_router_x.view()};
    gf::backward(p.ctx, p.w, in, p.tape, p.dy.view(), first.view(), p.g);
    p.loss();
    in.router_x_gradients = {};
    gf::backward(p.ctx, p.w, in, p.tape, p.dy.view(), p.dx.view(), p.g);
    BOOST_TEST(std::memcmp(first.data(), p.dx.data(), sizeof(double) * tokens * layer::hidden) == 0);
}

BOOST_AUTO_TEST_CASE(it_needs_the_input_whose_gradient_it_is_and_memory_of_its_own) {
    problem p;
    p.loss();
    gf::batch<layer> in{.x = p.x.view(), .router_x_gradients = p.d_router_x.view()};
    const auto call = [&] { gf::backward(p.ctx, p.w, in, p.tape, p.dy.view(), p.dx.view(), p.g); };
    BOOST_CHECK_THROW(call(), gf::argument_error);
    in.router_x = p.router_x.view();
    in.router_x_gradients = p.dx.view();
    BOOST_CHECK_THROW(call(), gf::argument_error);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
