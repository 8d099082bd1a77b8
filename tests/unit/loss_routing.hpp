// A layer whose logits are its input, so that a test of losses says what they are.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>
#include <tests/bridge.hpp>

namespace loss_routing {

namespace gf = gatefold;

template <int Experts, int TopK>
constexpr gf::config around(gf::router_config router) {
    gf::config c{.hidden = Experts, .ffn = 1, .experts = Experts, .top_k = TopK};
    c.router = router;
    return c;
}

/// The tape of one forward call over given logits.
template <class L>
struct routed {
    static constexpr int N = L::choices, S = L::slots;
    gf::context<gf::cpu> ctx;
    gf::weights<L> w;
    std::vector<typename L::value_type> x, y;
    gf::batch<L> in;
    gf::tape<L> tape;
    gf::options<L> call;

    routed(const std::vector<double>& logits, int threads = 1, gf::options<L> o = {},
           const std::vector<double>& selection_bias = {})
        : ctx(threads), w(gf::make_weights<L>(ctx)), x(logits.begin(), logits.end()), y(x.size()), call(o) {
        using R = typename L::router_type;
        for (int i = 0; i < N; ++i) w.router(i, i) = static_cast<R>(1);
        if constexpr (L::c.router.selection_bias != gf::key_bias::none)
            for (std::size_t i = 0; i < selection_bias.size(); ++i)
                w.selection_bias.data()[i] = static_cast<typename L::accumulate_type>(selection_bias[i]);
        in.x = {x.data(), {tokens(), N}};
        tape = gf::tape<L>(ctx, tokens());
        forward();
    }
    void forward() {
        gf::forward(ctx, w, in, {y.data(), {tokens(), N}}, tape, call);
        zero_gradients();
    }
    gf::index_t tokens() const { return static_cast<gf::index_t>(x.size()) / N; }
    void zero_gradients() {
        auto g = tape.logit_gradients();
        for (gf::index_t i = 0; i < g.size(); ++i) g.data()[i] = 0;
    }
    std::vector<double> gradients() {
        auto g = tape.logit_gradients();
        return {g.data(), g.data() + g.size()};
    }
    std::vector<double> logits() {
        auto z = tape.routing().logits;
        return {z.data(), z.data() + z.size()};
    }

    /// What the oracle's losses take.
    oracle::loss_input input(const std::vector<double>& mask = {}) {
        oracle::loss_input o;
        o.tokens = static_cast<oracle::natural>(tokens());
        o.experts = N;
        o.k = S;
        o.p = oracle::aux_probabilities(bridge::score_of(L::c.router.from), logits(), o.tokens, N);
        o.ids.assign(tape.routing().ids.data(), tape.routing().ids.data() + tokens() * S);
        o.mask = mask;
        return o;
    }
    std::vector<double> to_logits(const oracle::loss& loss) {
        return oracle::to_logits(bridge::score_of(L::c.router.from), logits(), static_cast<oracle::natural>(tokens()),
                                 N, loss.dp);
    }
};

inline std::vector<double> random_logits(int tokens, int experts, std::uint64_t seed, double size = 1.5) {
    std::vector<double> z(static_cast<std::size_t>(tokens * experts));
    std::uint64_t state = seed * 0x9E3779B97F4A7C15ull + 1;
    for (double& v : z) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        v = size * (static_cast<double>(state >> 11) * 0x1p-52 - 1);
    }
    return z;
}

inline void check_close(const std::vector<double>& got, const std::vector<double>& expected, const std::string& what,
                        double tolerance = 1e-12) {
    BOOST_REQUIRE_MESSAGE(got.size() == expected.size(), what);
    double error = 0, scale = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
        const double d = std::fabs(got[i] - expected[i]);
        if (!(d <= error)) error = d;
        scale = std::fmax(scale, std::fabs(expected[i]));
    }
    BOOST_TEST(error <= tolerance * scale, what << ": error " << error << " of " << scale);
}

}  // namespace loss_routing
