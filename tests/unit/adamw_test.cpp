// ctest: heavy
// AdamW and momentum against their formulas in double, float masters of bf16 weights, decay only where it belongs.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <boost/mpl/list.hpp>
#include <boost/test/unit_test.hpp>

#include <gatefold/train/adamw.hpp>
#include <gatefold/train/sgd.hpp>

namespace gf = gatefold;

namespace {

template <class T>
using small = gf::layer<
    gf::config{.hidden = 10, .ffn = 7, .experts = 3, .top_k = 2, .bias = true, .router = gf::routers::gpt_oss}, T>;

using types = boost::mpl::list<float, double, gf::bf16, gf::f16>;

template <class G>
void draw_gradients(G& g, int step) {
    double phase = 0.3 + step;
    gf::for_each_parameter(
        [&](const char*, auto& slot) {
            phase += 0.7;
            for (gf::index_t i = 0; i < slot.size(); ++i)
                slot.data()[i] = static_cast<std::remove_reference_t<decltype(slot.data()[0])>>(
                    std::sin(phase * static_cast<double>(i + 1)));
        },
        g);
}

/// The parameters of a set, one after the other, in double.
template <class Set>
std::vector<double> flat(const Set& set) {
    std::vector<double> all;
    gf::for_each_parameter(
        [&](const char*, const auto& slot) {
            for (gf::index_t i = 0; i < slot.size(); ++i) all.push_back(static_cast<double>(slot.data()[i]));
        },
        set);
    return all;
}
/// Which of them decay.
template <class Set>
std::vector<bool> decays(const Set& set) {
    std::vector<bool> all;
    gf::for_each_parameter(
        [&](const char* name, const auto& slot) {
            const bool does =
                std::string(name) == "router" || std::string(name) == "gate_up" || std::string(name) == "down";
            all.insert(all.end(), static_cast<std::size_t>(slot.size()), does);
        },
        set);
    return all;
}

template <class T>
void check_adamw(double tolerance) {
    gf::context<gf::cpu> ctx;
    using L = small<T>;
    auto w = gf::random_weights<L>(ctx, gf::seed{5});
    auto g = gf::make_gradients<L>(ctx);
    auto state = gf::make_adamw_state(ctx, w);
    std::vector<double> x = flat(w), m(x.size()), v(x.size());
    const std::vector<bool> decay = decays(w);
    BOOST_TEST(std::count(decay.begin(), decay.end(), true) == 3 * 10 + 3 * (14 * 10 + 10 * 7));
    const gf::adamw_options o{
        .first = 0.9, .second = 0.95, .epsilon = 1e-8, .weight_decay = 0.3, .gradient_factor = 0.7};
    for (int n = 1; n <= 5; ++n) {
        draw_gradients(g, n);
        const double rate = 0.01 / n;
        gf::step(ctx, w, g, state, rate, o);
        const std::vector<double> d = flat(g);
        for (std::size_t i = 0; i < x.size(); ++i) {
            const double scaled = 0.7 * d[i];
            m[i] = 0.9 * m[i] + 0.1 * scaled;
            v[i] = 0.95 * v[i] + 0.05 * scaled * scaled;
            const double root = std::sqrt(v[i] / (1 - std::pow(0.95, n))) + 1e-8;
            x[i] = (decay[i] ? 1 - rate * 0.3 : 1) * x[i] - rate * m[i] / (1 - std::pow(0.9, n)) / root;
        }
    }
    BOOST_TEST(state.steps == 5);
    const std::vector<double> got = flat(w);
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) worst = std::max(worst, std::fabs(got[i] - x[i]));
    BOOST_TEST(worst < tolerance);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(adamw)

BOOST_AUTO_TEST_CASE(follows_the_formula) {
    check_adamw<double>(1e-14);
    check_adamw<float>(2e-7);
}

BOOST_AUTO_TEST_CASE(small_weights_follow_float_masters) {
    // A step far below the spacing of bf16 numbers: without masters nothing would ever move.
    gf::context<gf::cpu> ctx;
    using L = small<gf::bf16>;
    auto w = gf::random_weights<L>(ctx, gf::seed{5});
    for (gf::index_t i = 0; i < w.down.size(); ++i) w.down.data()[i] = gf::bf16(1.0f);
    auto g = gf::make_gradients<L>(ctx);
    auto state = gf::make_adamw_state(ctx, w);
    gf::for_each_parameter(
        [](const char*, auto& slot) {
            for (gf::index_t i = 0; i < slot.size(); ++i) slot.data()[i] = 1;
        },
        g);
    for (int n = 0; n < 100; ++n) gf::step(ctx, w, g, state, 1e-4, {.weight_decay = 0});
    BOOST_TEST(std::fabs(state.masters.down.data()[0] - 0.99f) < 1e-4f);
    BOOST_TEST(static_cast<float>(w.down.data()[0]) == static_cast<float>(gf::bf16(state.masters.down.data()[0])));
    BOOST_TEST(static_cast<float>(w.down.data()[0]) < 1.0f);
}

BOOST_AUTO_TEST_CASE(bits_do_not_depend_on_threads) {
    using L = gf::layer<gf::config{.hidden = 100, .ffn = 70, .experts = 4, .top_k = 2}, float>;
    const auto run = [](int threads) {
        gf::context<gf::cpu> ctx(threads);
        auto w = gf::random_weights<L>(ctx, gf::seed{1});
        auto g = gf::make_gradients<L>(ctx);
        auto state = gf::make_adamw_state(ctx, w);
        for (int n = 0; n < 3; ++n) draw_gradients(g, n), gf::step(ctx, w, g, state, 0.01);
        return flat(w);
    };
    BOOST_TEST((run(1) == run(3)));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(stores_around_the_caches_store_the_same, T, types) {
    namespace k = gf::detail::on_cpu;
    using A = gf::accumulate_t<T>;
    constexpr gf::index_t n = 3 * k::lanes<A> + 5;
    const k::adamw_step<A> numbers({.gradient_factor = 0.7}, 0.01, 3, true);
    const auto run = [&](auto part) {
        gf::buffer<T> weight(n);
        gf::buffer<A> master(n), gradient(n), first(n), second(n);
        for (gf::index_t i = 0; i < n; ++i) {
            const auto x = static_cast<A>(std::sin(1 + 0.37 * static_cast<double>(i)));
            master.data()[i] = x, gradient.data()[i] = x * x - A(0.5), first.data()[i] = A(0.1) * x;
            second.data()[i] = i % 7 == 0 ? A(0) : x * x, weight.data()[i] = gf::from_accumulate<T>(x);
        }
        if constexpr (std::is_same_v<T, A>)
            part(numbers, 0, n, master.data(), master.data(), gradient.data(), first.data(), second.data());
        else
            part(numbers, 0, n, weight.data(), master.data(), gradient.data(), first.data(), second.data());
        std::vector<double> all;
        for (gf::index_t i = 0; i < n; ++i)
            for (const double x : {static_cast<double>(master.data()[i]), static_cast<double>(first.data()[i]),
                                   static_cast<double>(second.data()[i]), static_cast<double>(weight.data()[i])})
                all.push_back(x);
        return all;
    };
    BOOST_TEST((run(k::adamw_range<true, A, T, A>) == run(k::adamw_range<false, A, T, A>)));
}

BOOST_AUTO_TEST_CASE(momentum_follows_the_formula) {
    gf::context<gf::cpu> ctx;
    using L = small<double>;
    for (const bool nesterov : {false, true}) {
        auto w = gf::random_weights<L>(ctx, gf::seed{5});
        auto g = gf::make_gradients<L>(ctx);
        auto state = gf::make_sgd_state(ctx, w);
        std::vector<double> x = flat(w), u(x.size());
        const std::vector<bool> decay = decays(w);
        for (int n = 1; n <= 4; ++n) {
            draw_gradients(g, n);
            gf::step(
                ctx, w, g, state, 0.05,
                gf::sgd_options{.momentum = 0.8, .nesterov = nesterov, .weight_decay = 0.2, .gradient_factor = 0.5});
            const std::vector<double> d = flat(g);
            for (std::size_t i = 0; i < x.size(); ++i) {
                const double along = 0.5 * d[i] + (decay[i] ? 0.2 : 0) * x[i];
                u[i] = 0.8 * u[i] + along;
                x[i] -= 0.05 * (nesterov ? along + 0.8 * u[i] : u[i]);
            }
        }
        const std::vector<double> got = flat(w);
        double worst = 0;
        for (std::size_t i = 0; i < x.size(); ++i) worst = std::max(worst, std::fabs(got[i] - x[i]));
        BOOST_TEST(worst < 1e-14);
    }
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
