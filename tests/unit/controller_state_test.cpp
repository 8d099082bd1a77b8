// Controllers in checkpoints: a run that is resumed has the bits of one that was never interrupted, whatever steers it.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>
#include <unistd.h>

#include <gatefold/gatefold.hpp>
#include <gatefold/train.hpp>

namespace gf = gatefold;

namespace {

struct folder {
    std::string path;
    folder() {
        char name[] = "/tmp/gatefold-controllers-XXXXXX";
        path = mkdtemp(name);
    }
    ~folder() {
        std::remove((path + "/a.safetensors").c_str());
        rmdir(path.c_str());
    }
};

constexpr gf::config around(gf::router_config r, int top_k, gf::free_experts free = {}) {
    gf::config c{.hidden = 6, .ffn = 4, .experts = 4, .top_k = top_k};
    c.router = r;
    c.free = free;
    return c;
}
constexpr gf::router_config biased = gf::with(gf::routers::glm4_air, &gf::router_config::epsilon, 1e-6f);

/// A layer that learns to be small, and everything that a controller may remember.
template <gf::config C>
struct run {
    using L = gf::layer<C, float>;
    static constexpr gf::index_t tokens = 16;
    gf::context<gf::cpu> ctx{1};
    gf::weights<L> w = gf::random_weights<L>(ctx, gf::seed{5});
    gf::gradients<L> g = gf::make_gradients<L>(ctx);
    gf::adamw_state<gf::weights<L>> state = gf::make_adamw_state(ctx, w);
    gf::tape<L> tape{ctx, tokens};
    std::vector<float> x = std::vector<float>(tokens * L::hidden), y = x, dx = x;
    std::vector<double> history = std::vector<double>(2 * L::choices);
    gf::relu_coefficient coefficient{.target = 0.6, .rate = 1.2, .value = 1e-3};

    gf::view<double, 2, gf::dyn> errors() { return {history.data(), {2, L::choices}}; }
    template <class Steer>
    void go_to(gf::index_t steps, Steer steer) {
        while (state.steps < steps) {
            for (std::size_t i = 0; i < x.size(); ++i)
                x[i] =
                    static_cast<float>((static_cast<int>(i) * 37 + static_cast<int>(state.steps) * 11) % 23) / 11 - 1;
            gf::batch<L> in;
            in.x = {x.data(), {tokens, L::hidden}};
            gf::forward(ctx, w, in, {y.data(), {tokens, L::hidden}}, tape, {.training = true});
            gf::add_loss(ctx, gf::losses::relu_sparsity{coefficient.value}, tape);
            gf::backward(ctx, w, in, tape, {y.data(), {tokens, L::hidden}}, {dx.data(), {tokens, L::hidden}}, g);
            std::vector<gf::index_t> counts(L::choices);
            gf::add_expert_counts(tape.routing().ids, {counts.data(), {L::choices}});
            steer(*this, gf::view<const gf::index_t, gf::dyn>(counts.data(), {L::choices}));
            gf::step(ctx, w, g, state, 0.01);
        }
    }
    std::vector<gf::named_numbers> numbers() {
        return {gf::numbers_of("pid", errors()), gf::numbers_of("relu", coefficient)};
    }
    std::vector<double> all() {
        std::vector<double> values(history);
        values.push_back(coefficient.value);
        const auto take = [&](const char*, const auto& slot) {
            for (gf::index_t i = 0; i < slot.size(); ++i) values.push_back(static_cast<double>(slot.data()[i]));
        };
        gf::for_each_parameter(take, w);
        gf::for_each_buffer(take, w);
        gf::for_each_parameter(take, state.first);
        gf::for_each_parameter(take, state.second);
        return values;
    }
};

template <gf::config C, class Steer>
void check_resume(Steer steer) {
    const folder home;
    const std::string path = home.path + "/a.safetensors";
    run<C> whole, first, second;
    whole.go_to(11, steer);
    first.go_to(5, steer);
    gf::save(path, first.w, first.state, first.numbers());
    gf::load(second.ctx, path, second.w, second.state, second.numbers());
    BOOST_TEST((second.all() == first.all()));
    second.go_to(11, steer);
    BOOST_TEST((second.all() == whole.all()));
    BOOST_TEST((first.all() != whole.all()));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(controller_state)

BOOST_AUTO_TEST_CASE(biases) {
    constexpr gf::config c = around(biased, 2);
    check_resume<c>([](auto& r, auto counts) { gf::update(gf::sign_bias{0.01}, r.w.selection_bias.view(), counts); });
    check_resume<c>(
        [](auto& r, auto counts) { gf::update(gf::additive_bias{0.01}, r.w.selection_bias.view(), counts); });
}

BOOST_AUTO_TEST_CASE(averages_of_outputs) {
    check_resume<around({.learns_from = gf::estimator::default_vectors}, 2)>([](auto& r, auto) {
        gf::batch<typename std::remove_reference_t<decltype(r)>::L> in;
        in.x = {r.x.data(), {16, 6}};
        gf::update(r.ctx, gf::output_average{0.75}, r.w, in, r.tape, {.training = true});
    });
}

BOOST_AUTO_TEST_CASE(quantiles) {
    constexpr gf::router_config logit = gf::with(biased, &gf::router_config::selection_bias, gf::key_bias::logit);
    check_resume<around(logit, 2)>([](auto& r, auto) {
        auto z = r.tape.routing().logits;
        gf::update(r.ctx, gf::quantile_bias{2}, r.w.selection_bias.view(), z);
    });
}

BOOST_AUTO_TEST_CASE(errors_of_a_pid_controller) {
    check_resume<around(gf::with(gf::routers::longcat, &gf::router_config::scale, 1.0), 2, {.copy = 2})>(
        [](auto& r, auto counts) {
            gf::update(gf::pid_bias{4, 0.75, 0.01, 0.03, 0.02}, r.w.selection_bias.view(), counts, r.errors());
            bool remembers = false;
            for (double e : r.history) remembers = remembers || e != 0;
            BOOST_TEST(remembers);
        });
}

BOOST_AUTO_TEST_CASE(coefficient_of_a_relu_router) {
    check_resume<around(gf::routers::remoe, 1)>([](auto& r, auto) {
        auto z = r.tape.routing().logits;
        gf::update(r.coefficient, gf::sparsity_of(z));
    });
}

BOOST_AUTO_TEST_CASE(numbers_that_the_file_does_not_hold) {
    const folder home;
    const std::string path = home.path + "/a.safetensors";
    run<around(biased, 2)> r;
    gf::save(path, r.w, r.state);
    r.history[3] = 7;
    const auto before = r.all();
    BOOST_CHECK_THROW(gf::load(r.ctx, path, r.w, r.state, r.numbers()), gf::file_error);
    BOOST_TEST((r.all() == before));
    BOOST_CHECK_NO_THROW(gf::load(r.ctx, path, r.w, r.state));
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
