// The whole layer with its losses against central differences in double: Σ y · dy + losses, by every parameter and x.
#include <cmath>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>

namespace gf = gatefold;

namespace {

template <class V>
void fill(V* to, gf::index_t n, std::uint64_t seed, double size) {
    std::uint64_t state = seed * 0x9E3779B97F4A7C15ull + 1;
    for (gf::index_t i = 0; i < n; ++i) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        to[i] = static_cast<V>(size * (static_cast<double>(state >> 11) * 0x1p-52 - 1));
    }
}

template <gf::config C>
struct problem {
    using L = gf::layer<C, double>;
    static constexpr gf::index_t tokens = 12;
    gf::context<gf::cpu> ctx{1};
    gf::weights<L> w = gf::make_weights<L>(ctx);
    gf::gradients<L> g = gf::make_gradients<L>(ctx);
    std::vector<double> x = std::vector<double>(tokens * L::hidden), y = x, dy = x, dx = x;
    std::vector<std::uint8_t> mask = std::vector<std::uint8_t>(tokens, 1);
    std::vector<std::int32_t> starts = {0, 5, 9};
    gf::batch<L> in;
    gf::tape<L> tape{ctx, tokens};
    gf::options<L> call;

    explicit problem(std::uint64_t seed) {
        gf::for_each_parameter([&](const char*, auto& p) { fill(p.data(), p.size(), ++seed, 0.9); }, w);
        gf::for_each_buffer([&](const char*, auto& p) { fill(p.data(), p.size(), ++seed, 0.3); }, w);
        fill(x.data(), tokens * L::hidden, 70 + seed, 1);
        fill(dy.data(), tokens * L::hidden, 80 + seed, 1);
        mask[3] = mask[10] = 0;
        in.x = {x.data(), {tokens, L::hidden}};
        in.mask = {mask.data(), {tokens}};
        in.sequence_starts = {starts.data(), {3}};
        call.training = true;
        call.seed = seed;
    }

    template <class Losses>
    double value(Losses&& losses) {
        gf::forward(ctx, w, in, {y.data(), {tokens, L::hidden}}, tape, call);
        double sum = losses(*this);
        for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
        return sum;
    }

    /// Compares every element of every gradient; a step that changes the choice of experts is a wrong seed.
    template <class Losses>
    void check(const char* name, Losses&& losses) {
        value(losses);
        std::vector<std::int32_t> chosen(tape.routing().ids.data(), tape.routing().ids.data() + tokens * L::slots);
        gf::backward(ctx, w, in, tape, {dy.data(), {tokens, L::hidden}}, {dx.data(), {tokens, L::hidden}}, g, call);
        const auto compare = [&](const char* what, double* parameter, const double* gradient, gf::index_t n) {
            double error = 0, scale = 0;
            int flips = 0;
            for (gf::index_t i = 0; i < n; ++i) {
                constexpr double step = 1e-6;
                const double kept = parameter[i];
                const auto at = [&](double moved) {
                    parameter[i] = moved;
                    const double v = value(losses);
                    for (std::size_t j = 0; j < chosen.size(); ++j) flips += tape.routing().ids.data()[j] != chosen[j];
                    return v;
                };
                const double slope = (at(kept + step) - at(kept - step)) / (2 * step);
                parameter[i] = kept;
                error = std::fmax(error, std::fabs(slope - gradient[i]));
                scale = std::fmax(scale, std::fabs(slope));
            }
            BOOST_TEST(flips == 0, name << " " << what << ": the choice changed");
            BOOST_TEST(error <= 1e-6 * std::fmax(scale, 1e-2), name << " " << what << ": " << error << " of " << scale);
        };
        compare("x", x.data(), dx.data(), tokens * L::hidden);
        gf::for_each_parameter([&](const char* what, auto& p, auto& d) { compare(what, p.data(), d.data(), p.size()); },
                               w, g);
    }
};

constexpr gf::config small(int top_k, gf::router_config router) {
    gf::config c{.hidden = 5, .ffn = 3, .experts = 4, .top_k = top_k};
    c.router = router;
    return c;
}

namespace losses = gf::losses;

}  // namespace

BOOST_AUTO_TEST_SUITE(gradient)
BOOST_AUTO_TEST_SUITE(losses)

BOOST_AUTO_TEST_CASE(softmax_router) {
    problem<small(2, gf::routers::mixtral)> p(1);
    const auto add = [](auto... loss) { return [=](auto& q) { return gf::add_losses(q.ctx, q.tape, q.in, loss...); }; };
    p.check("switch", add(::losses::switch_balance{0.5}));
    p.check("groups", add(::losses::gshard{0.5}, ::losses::flaxformer{0.3, 4}, ::losses::sequence_wise{0.7}));
    p.check("counts", add(::losses::hugging_face{0.5}, ::losses::megatron{1.5}, ::losses::device_level{0.5, 2},
                          ::losses::communication{0.5, 2, 2}));
    const std::vector<gf::index_t> chosen = {30, 12, 1, 7};
    p.check("given counts", add(::losses::global_batch{0.5, {chosen.data(), {4}}}, ::losses::expert_level{0.5}));
    p.check("logits", add(::losses::z_loss{0.5}, ::losses::relu_sparsity{0.5}, ::losses::expert_selection{2}));
    p.check("spread", add(::losses::importance{2}, ::losses::gate_importance{2, ::losses::variance::sample}));
    p.check("rest", add(::losses::second_place{1}, ::losses::entropy{0.5}, ::losses::score_variance{3}));
    // The loss of the weights needs no pass: its gradient alone.
    const auto value = [](auto& q) {
        auto unused = gf::make_gradients<typename std::remove_reference_t<decltype(q)>::L>(q.ctx);
        return gf::add_loss(q.ctx, ::losses::orthogonality{0.5}, q.w, unused);
    };
    for (gf::index_t i = 0; i < p.w.router.size(); ++i) {
        const double kept = p.w.router.data()[i];
        p.w.router.data()[i] = kept + 1e-6;
        const double above = value(p);
        p.w.router.data()[i] = kept - 1e-6;
        const double below = value(p);
        p.w.router.data()[i] = kept;
        p.g.router.data()[i] = 0;
        gf::add_loss(p.ctx, ::losses::orthogonality{0.5}, p.w, p.g);
        BOOST_TEST(std::fabs((above - below) / 2e-6 - p.g.router.data()[i]) < 1e-6);
    }
}

BOOST_AUTO_TEST_CASE(sigmoid_router_with_a_bias) {
    problem<small(2, gf::with(gf::routers::glm4_moe, &gf::router_config::epsilon, 1e-3f))> p(4);
    p.check("sigmoid", [](auto& q) {
        return gf::add_losses(q.ctx, q.tape, q.in, ::losses::sequence_wise{0.7}, ::losses::hugging_face{0.5},
                              ::losses::importance{1}, ::losses::gate_importance{1}, ::losses::entropy{0.3},
                              ::losses::z_loss{0.1});
    });
}

BOOST_AUTO_TEST_CASE(sqrt_softplus_router) {
    problem<small(2, gf::routers::deepseek_v4)> p(6);
    p.check("sqrt_softplus", [](auto& q) {
        return gf::add_losses(q.ctx, q.tape, q.in, ::losses::sequence_wise{0.7}, ::losses::second_place{0.5});
    });
}

BOOST_AUTO_TEST_CASE(normal_noise) {
    problem<small(2, gf::routers::v_moe)> p(8);
    p.check("v_moe", [](auto& q) {
        return gf::add_loss(q.ctx, ::losses::load{3}, q.tape, q.in, q.call) +
               gf::add_losses(q.ctx, q.tape, q.in, ::losses::importance{1});
    });
}

BOOST_AUTO_TEST_CASE(learned_noise) {
    // Through the noisy logits and through the deviations, in training; no gradient without noise.
    problem<small(2, gf::routers::noisy_top_k)> p(14);
    p.check("noisy_top_k", [](auto& q) {
        return gf::add_loss(q.ctx, ::losses::load{3}, q.tape, q.in, q.call) +
               gf::add_losses(q.ctx, q.tape, q.in, ::losses::gate_importance{1});
    });
    p.call.training = false;
    p.check("noisy_top_k", [](auto& q) {
        return gf::add_loss(q.ctx, ::losses::load{3}, q.tape, q.in, q.call) -
               gf::add_loss(q.ctx, ::losses::load{3}, q.tape, q.in, q.call);
    });
}

BOOST_AUTO_TEST_CASE(noise_that_experts_see) {
    constexpr gf::router_config mixtral = gf::with(gf::routers::mixtral, &gf::router_config::noise, 0.3f,
                                                   &gf::router_config::noise_on, gf::input_noise::shared_jitter);
    const auto none = [](auto&) { return 0.0; };
    problem<gf::with(small(2, mixtral), &gf::config::shared, gf::shared_config{.ffn = 2, .gate = true})> shared(3);
    shared.check("shared jitter", none);
    problem<small(2, gf::with(mixtral, &gf::router_config::noise_on, gf::input_noise::shared_jitter_twice))> twice(5);
    twice.check("shared jitter, twice", none);
    problem<small(2, gf::with(mixtral, &gf::router_config::noise_on, gf::input_noise::dropout))> dropout(7);
    dropout.check("dropout", none);
}

BOOST_AUTO_TEST_CASE(what_experts_read_and_return) {
    const auto none = [](auto&) { return 0.0; };
    problem<small(1, gf::routers::base)> blend(9);
    blend.in.mask = {};
    blend.check("blend", none);
    constexpr gf::config constant = gf::with(small(3, gf::routers::moe_plus_plus), &gf::config::free,
                                             gf::free_experts{.constant = 2, .copy = 1, .zero = 1});
    problem<constant> times_k(11);
    times_k.check("times k", none);
    problem<gf::with(small(2, gf::with(gf::routers::mixtral, &gf::router_config::input_times_k, true)),
                     &gf::config::latent, 3)>
        latent(13);
    latent.check("times k, latent", none);
}

BOOST_AUTO_TEST_CASE(experts_that_choose) {
    problem<small(2, gf::routers::mesh_expert_choice)> mesh(15);
    mesh.check("mesh", [](auto& q) { return gf::add_losses(q.ctx, q.tape, q.in, ::losses::expert_selection{2}); });
    constexpr gf::config groups = gf::with(
        small(2, gf::routers::mesh_expert_choice), &gf::config::capacity,
        gf::capacity_config{
            .rule = gf::capacity_rule::share, .factor = 1.5f, .shared_by = gf::capacity_group::fixed, .group_size = 5});
    problem<groups> fixed(17);
    fixed.check("groups", [](auto&) { return 0.0; });
}

BOOST_AUTO_TEST_CASE(relu_router) {
    problem<small(1, gf::routers::remoe)> p(10);
    p.check("remoe", [](auto& q) {
        return gf::add_losses(q.ctx, q.tape, q.in, ::losses::relu_sparsity{0.5}, ::losses::hugging_face{0.5});
    });
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
