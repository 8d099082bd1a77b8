// Soft MoE against the oracle, against differences, and whatever the number of threads.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>
#include <gatefold/moe/soft.hpp>
#include <tests/bridge.hpp>

namespace gf = gatefold;

namespace {

constexpr int H = 10, S = 6, E = 3;
/// Experts whose tokens are slots, two for each.
constexpr gf::config experts_config{
    .hidden = H, .ffn = 4, .experts = E, .top_k = 1, .bias = true, .router = gf::routers::hash};

template <class V>
void fill(V* to, gf::index_t n, std::uint64_t seed, double size = 1) {
    std::uint64_t state = seed * 0x9E3779B97F4A7C15ull + 1;
    for (gf::index_t i = 0; i < n; ++i) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        to[i] = static_cast<V>(size * (static_cast<double>(state >> 11) * 0x1p-52 - 1));
    }
}

template <class T>
struct soft {
    using L = gf::layer<experts_config, T>;
    using A = gf::accumulate_t<T>;
    gf::context<gf::cpu> ctx;
    gf::index_t tokens;
    gf::weights<L> w = gf::make_weights<L>(ctx);
    gf::gradients<L> g = gf::make_gradients<L>(ctx);
    gf::soft_router<T, H, S> router = gf::random_soft_router<T, H, S>(ctx, 3);
    gf::soft_router<A, H, S> d_router = gf::random_soft_router<A, H, S>(ctx, 4);
    gf::soft_tape<T, H, S> soft_tape;
    gf::tape<L> tape{ctx, S};
    std::vector<T> x, y, dy, dx, slots, returned, d_slots, d_returned;
    std::vector<std::int32_t> ids = std::vector<std::int32_t>(S);

    explicit soft(gf::index_t n, int threads = 1)
        : ctx(threads),
          tokens(n),
          soft_tape(ctx, n + 2),
          x(static_cast<std::size_t>(n * H)),
          y(x),
          dy(x),
          dx(x),
          slots(S * H),
          returned(slots),
          d_slots(slots),
          d_returned(slots) {
        std::uint64_t seed = 1;
        gf::for_each_parameter([&](const char*, auto& p) { fill(p.data(), p.size(), ++seed, 0.9); }, w);
        fill(x.data(), n * H, 50);
        fill(dy.data(), n * H, 51);
        router.scale.data()[0] = A(2.5);
        gf::soft_slots({ids.data(), {S, 1}}, E);
    }
    static gf::view<T, gf::dyn, H> rows(std::vector<T>& v) {
        return {v.data(), {static_cast<gf::index_t>(v.size()) / H, H}};
    }
    gf::batch<L> in() {
        gf::batch<L> b;
        b.x = rows(slots);
        b.chosen = {ids.data(), {S, 1}};
        return b;
    }
    double forward() {
        gf::soft_dispatch(ctx, router, rows(x), soft_tape, rows(slots));
        gf::forward(ctx, w, in(), rows(returned), tape);
        gf::soft_combine(ctx, soft_tape, rows(returned), rows(y));
        double sum = 0;
        for (std::size_t i = 0; i < y.size(); ++i) sum += static_cast<double>(y[i]) * static_cast<double>(dy[i]);
        return sum;
    }
    void backward(bool accumulate = false) {
        gf::soft_combine_backward(ctx, soft_tape, rows(returned), rows(dy), rows(d_returned));
        gf::backward(ctx, w, in(), tape, rows(d_returned), rows(d_slots), g, {.accumulate = accumulate});
        gf::soft_dispatch_backward(ctx, router, rows(x), soft_tape, rows(d_slots), rows(dx), d_router, accumulate);
    }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(oracle)
BOOST_AUTO_TEST_SUITE(soft_moe)

BOOST_AUTO_TEST_CASE(forward) {
    for (const gf::index_t tokens : {1, 2, 19}) {
        soft<double> s(tokens, 2);
        s.forward();
        oracle::layer l = bridge::layer_of(experts_config);
        oracle::values phi(H * S);
        for (std::size_t h = 0; h < H; ++h)
            for (std::size_t c = 0; c < S; ++c) phi[h * S + c] = s.router.directions.data()[c * H + h];
        const auto r = oracle::soft_moe_forward(l, bridge::parameters_of(s.w), phi, 2.5, S / E, s.x,
                                                static_cast<oracle::natural>(tokens));
        for (std::size_t i = 0; i < s.slots.size(); ++i) BOOST_TEST(std::fabs(s.slots[i] - r.slot_input[i]) < 1e-13);
        for (std::size_t i = 0; i < s.y.size(); ++i) BOOST_TEST(std::fabs(s.y[i] - r.y[i]) < 1e-13);
        soft<float> f(tokens, 2);
        f.forward();
        for (std::size_t i = 0; i < f.y.size(); ++i) BOOST_TEST(std::fabs(static_cast<double>(f.y[i]) - r.y[i]) < 1e-5);
    }
}

BOOST_AUTO_TEST_CASE(backward_by_differences) {
    soft<double> s(7, 2);
    s.forward();
    s.backward();
    const auto check = [&](const char* what, double* values, const double* gradient, gf::index_t n) {
        for (gf::index_t i = 0; i < n; ++i) {
            const double kept = values[i];
            values[i] = kept + 1e-6;
            const double above = s.forward();
            values[i] = kept - 1e-6;
            const double below = s.forward();
            values[i] = kept;
            BOOST_TEST(std::fabs((above - below) / 2e-6 - gradient[i]) <= 1e-6 * (0.1 + std::fabs(gradient[i])),
                       what << " " << i);
        }
    };
    const std::vector<double> dx = s.dx;
    check("x", s.x.data(), dx.data(), 7 * H);
    check("directions", s.router.directions.data(), s.d_router.directions.data(), S * H);
    check("scale", s.router.scale.data(), s.d_router.scale.data(), 1);
    gf::for_each_parameter([&](const char* name, auto& p, auto& d) { check(name, p.data(), d.data(), p.size()); }, s.w,
                           s.g);
}

BOOST_AUTO_TEST_CASE(threads_and_accumulation) {
    std::vector<float> first;
    for (const int threads : {1, 2, 3, 5}) {
        soft<float> s(33, threads);
        s.forward();
        s.backward();
        std::vector<float> all = s.dx;
        all.insert(all.end(), s.y.begin(), s.y.end());
        all.insert(all.end(), s.d_router.directions.data(), s.d_router.directions.data() + S * H);
        all.push_back(s.d_router.scale.data()[0]);
        if (first.empty()) first = all;
        BOOST_TEST((std::memcmp(all.data(), first.data(), all.size() * sizeof(float)) == 0), threads << " threads");
    }
    soft<double> s(5);
    s.forward();
    s.backward();
    const double once = s.d_router.scale.data()[0], direction = s.d_router.directions.data()[3];
    s.backward(true);
    BOOST_TEST(std::fabs(s.d_router.scale.data()[0] - 2 * once) < 1e-13);
    BOOST_TEST(std::fabs(s.d_router.directions.data()[3] - 2 * direction) < 1e-13);
}

BOOST_AUTO_TEST_CASE(broken_tokens_and_arguments) {
    soft<float> s(4);
    for (int h = 0; h < H; ++h) s.x[static_cast<std::size_t>(h)] = 0;  // no direction
    s.forward();
    s.backward();
    for (const float v : s.y) BOOST_TEST(std::isfinite(v));
    for (std::size_t i = H; i < s.dx.size(); ++i) BOOST_TEST(std::isfinite(s.dx[i]));
    std::vector<float> many(9 * H, 1.0f);
    BOOST_CHECK_THROW(gf::soft_dispatch(s.ctx, s.router, s.rows(many), s.soft_tape, s.rows(s.slots)),
                      gf::argument_error);
    BOOST_CHECK_THROW(gf::soft_combine(s.ctx, s.soft_tape, s.rows(s.returned), s.rows(many)), gf::argument_error);
    BOOST_CHECK_THROW(gf::soft_slots({s.ids.data(), {S, 1}}, 4), gf::argument_error);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
