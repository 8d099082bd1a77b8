// How often a call asks for threads: one region for routing and routed experts, one run of an executor per phase.
#include <cstddef>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>

namespace {

namespace gf = gatefold;

/// Runs parts one after another, and keeps how many each run had.
struct recorded {
    std::vector<int> seen;
    gf::executor runs() {
        return {this, [](void* self, int parts, void (*part)(void*, int), void* argument) {
                    static_cast<recorded*>(self)->seen.push_back(parts);
                    for (int p = parts; p-- > 0;) part(argument, p);
                }};
    }
};

constexpr gf::config plain{.hidden = 256, .ffn = 512, .experts = 8, .top_k = 2, .router = gf::routers::mixtral};
constexpr gf::config with_shared = [] {
    gf::config c = plain;
    c.shared.ffn = 256;
    return c;
}();

/// The runs of one forward call over `tokens` tokens on `threads` threads, whose result has the bits of one thread.
template <gf::config C>
std::vector<int> runs_of(gf::index_t tokens, int threads) {
    using L = gf::layer<C, float>;
    recorded record;
    gf::context_options options;
    options.threads = threads;
    options.runs = record.runs();
    gf::context<gf::cpu> ctx(options), alone(1);
    auto w = gf::make_weights<L>(alone);
    gf::for_each_parameter(
        [](const char*, auto& v) {
            for (gf::index_t i = 0; i < v.size(); ++i) v.data()[i] = static_cast<float>((i * 7919) % 127 - 63) / 640;
        },
        w);
    const auto p = gf::pack(alone, w);
    auto x = gf::make_tensor<float, gf::dyn, L::hidden>(alone, tokens);
    for (gf::index_t i = 0; i < x.size(); ++i) x.data()[i] = static_cast<float>((i * 104729) % 255 - 127) / 64;
    auto y = gf::make_tensor<float, gf::dyn, L::hidden>(alone, tokens);
    auto once = gf::make_tensor<float, gf::dyn, L::hidden>(alone, tokens);
    gf::forward(alone, p, gf::batch<L>{x.view()}, once.view());
    ctx.reserve<L>(tokens, false);
    record.seen.clear();
    gf::forward(ctx, p, gf::batch<L>{x.view()}, y.view());
    bool same = true;
    for (gf::index_t i = 0; i < y.size(); ++i) same = same && y.data()[i] == once.data()[i];
    BOOST_TEST(same);
    BOOST_TEST(ctx.report().tokens == tokens);
    return record.seen;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(regions)

BOOST_AUTO_TEST_CASE(routing_and_experts_are_phases_of_one_region) {
    // Logits, choice with counts, places, rows, first and second projection.
    BOOST_TEST((runs_of<plain>(256, 4) == std::vector<int>{4, 4, 4, 4, 4, 4}));
    // Few tokens are routed by the caller.
    BOOST_TEST((runs_of<plain>(4, 4) == std::vector<int>{4, 4}));
    BOOST_TEST((runs_of<plain>(1, 4) == std::vector<int>{4, 4}));
    BOOST_TEST((runs_of<plain>(256, 1).empty()));
    BOOST_TEST((runs_of<plain>(0, 4).empty()));
}

BOOST_AUTO_TEST_CASE(a_shared_expert_is_a_region_of_its_own) {
    BOOST_TEST((runs_of<with_shared>(4, 2) == std::vector<int>{2, 2, 2, 2}));
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
