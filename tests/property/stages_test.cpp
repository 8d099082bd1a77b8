// ctest: heavy
// The stages one by one, route, apply_capacity, make_plan, experts and combine, give the bits of forward; and each
// names what does not fit.
#include <cstring>
#include <type_traits>
#include <vector>

#include <boost/mpl/list.hpp>
#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>
#include <tests/layer_comparison.hpp>
#include <tests/layers.hpp>

namespace gf = gatefold;

namespace {

using mixtral = gf::layer<test_layers::mixtral, float>;
using shared = gf::layer<test_layers::deepseek, gf::bf16>;
using on_input = gf::layer<
    gf::config{.hidden = 33, .ffn = 20, .experts = 6, .top_k = 1, .router = gf::routers::llama4, .shared = {.ffn = 9}},
    gf::f16>;
using limited = gf::layer<gf::config{.hidden = 16,
                                     .ffn = 24,
                                     .experts = 5,
                                     .top_k = 2,
                                     .router = gf::routers::mixtral,
                                     .capacity = {.rule = gf::capacity_rule::megatron, .factor = 0.75f}},
                          float>;
using free = gf::layer<gf::config{.hidden = 20,
                                  .ffn = 12,
                                  .experts = 4,
                                  .top_k = 3,
                                  .router = gf::routers::mixtral,
                                  .free = {.constant = 1, .copy = 1, .zero = 1}},
                       float>;
using latent = gf::layer<gf::config{.hidden = 40,
                                    .ffn = 12,
                                    .experts = 6,
                                    .top_k = 2,
                                    .router = gf::routers::mixtral,
                                    .shared = {.ffn = 8},
                                    .latent = 16},
                         double>;
using layers = boost::mpl::list<mixtral, shared, on_input, limited, free, latent>;

constexpr gf::index_t tokens = 29;

template <class L>
struct problem {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    gf::context<gf::cpu> ctx{2};
    gf::weights<L> w = gf::make_weights<L>(ctx);
    gf::tensor<T, gf::dyn, L::hidden> x = gf::make_tensor<T, gf::dyn, L::hidden>(ctx, tokens),
                                      y = gf::make_tensor<T, gf::dyn, L::hidden>(ctx, tokens),
                                      expected = gf::make_tensor<T, gf::dyn, L::hidden>(ctx, tokens);
    gf::tensor<std::int32_t, gf::dyn, L::slots> ids = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(ctx, tokens);
    gf::tensor<A, gf::dyn, L::slots> weights = gf::make_tensor<A, gf::dyn, L::slots>(ctx, tokens);
    gf::tensor<A, gf::dyn, L::choices> logits = gf::make_tensor<A, gf::dyn, L::choices>(ctx, tokens);
    gf::tensor<std::uint8_t, gf::dyn> kept = gf::make_tensor<std::uint8_t, gf::dyn>(ctx, tokens* L::slots);
    gf::plan<L> memory{ctx, tokens};
    gf::tensor<gf::expert_sum<L>, gf::dyn, L::width> z =
        gf::make_tensor<gf::expert_sum<L>, gf::dyn, L::width>(ctx, tokens* L::slots);

    problem() {
        comparison::fill(w, 1);
        std::uint64_t state = 5;
        for (gf::index_t i = 0; i < x.size(); ++i) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            const double value = static_cast<double>(state >> 11) * 0x1p-53 * 2 - 1;
            x.data()[i] = gf::from_accumulate<T>(static_cast<A>(value));
            y.data()[i] = expected.data()[i] = gf::from_accumulate<T>(static_cast<A>(0.5 * value));
        }
    }
    gf::batch<L> in() { return {.x = x.view()}; }
    gf::routing_view<L> routing() { return {ids.view(), weights.view(), logits.view()}; }
    template <class W>
    void run(const W& form, bool accumulate) {
        const gf::options<L> o{.accumulate = accumulate};
        gf::forward(ctx, form, in(), expected.view(), o);
        gf::route(ctx, form, in(), routing(), o);
        const gf::plan_view<gf::cpu> plan = memory.view(tokens);
        if constexpr (gf::drops(L::c)) {
            gf::apply_capacity(ctx, in(), routing(), kept.view(), o);
            gf::make_plan<L>(ctx, ids.view(), plan, kept.view());
        } else {
            gf::make_plan<L>(ctx, ids.view(), plan);
        }
        for (gf::index_t i = 0; i < z.size(); ++i) z.data()[i] = 7;
        gf::experts(ctx, form, in(), plan, routing(), z.view(), o);
        gf::combine(ctx, form, in(), plan, routing(), z.view(), y.view(), o);
        BOOST_TEST(std::memcmp(y.data(), expected.data(), sizeof(T) * static_cast<std::size_t>(y.size())) == 0);
        for (gf::index_t r = plan.offsets[L::experts]; r < z.extent(0); ++r) BOOST_TEST(z(r, 0) == 7);
    }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(property)
BOOST_AUTO_TEST_SUITE(stages)

BOOST_AUTO_TEST_CASE_TEMPLATE(one_by_one_give_the_bits_of_forward, L, layers) {
    problem<L> p;
    for (const bool accumulate : {false, true}) p.run(p.w, accumulate);
    p.run(gf::pack(p.ctx, p.w), false);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(routing_needs_no_matrices, L, layers) {
    problem<L> p;
    p.run(p.w, false);
    gf::packed<L> router = gf::pack(p.ctx, p.w);
    gf::route(p.ctx, router, p.in(), p.routing());
    const std::vector<std::int32_t> ids(p.ids.data(), p.ids.data() + p.ids.size());
    const std::vector<typename L::accumulate_type> weights(p.weights.data(), p.weights.data() + p.weights.size());
    router.matrices = {};
    gf::route(p.ctx, router, p.in(), p.routing());
    BOOST_TEST(std::memcmp(ids.data(), p.ids.data(), sizeof(ids[0]) * ids.size()) == 0);
    BOOST_TEST(std::memcmp(weights.data(), p.weights.data(), sizeof(weights[0]) * weights.size()) == 0);
    const gf::plan_view<gf::cpu> plan = p.memory.view(tokens);
    BOOST_CHECK_THROW(gf::experts(p.ctx, router, p.in(), plan, p.routing(), p.z.view()), gf::argument_error);
    const auto combine = [&] { gf::combine(p.ctx, router, p.in(), plan, p.routing(), p.z.view(), p.y.view()); };
    if constexpr (L::shared_ffn > 0)
        BOOST_CHECK_THROW(combine(), gf::argument_error);
    else
        BOOST_CHECK_NO_THROW(combine());
}

BOOST_AUTO_TEST_CASE(what_lies_between_two_stages_may_be_changed) {
    problem<mixtral> p;
    p.run(p.w, false);
    // Halving what the experts return halves the output: there is no shared expert.
    for (gf::index_t i = 0; i < p.z.size(); ++i) p.z.data()[i] *= 0.5f;
    gf::combine(p.ctx, p.w, p.in(), p.memory.view(tokens), p.routing(), p.z.view(), p.y.view());
    for (gf::index_t i = 0; i < p.y.size(); ++i) BOOST_TEST(p.y.data()[i] == 0.5f * p.expected.data()[i]);
}

BOOST_AUTO_TEST_CASE(stages_name_what_does_not_fit) {
    problem<mixtral> p;
    p.run(p.w, false);
    gf::plan_view<gf::cpu> plan = p.memory.view(tokens);
    const auto experts = [&] { gf::experts(p.ctx, p.w, p.in(), plan, p.routing(), p.z.view()); };
    const auto combine = [&] { gf::combine(p.ctx, p.w, p.in(), plan, p.routing(), p.z.view(), p.y.view()); };
    const std::vector<float> before(p.y.data(), p.y.data() + p.y.size());
    plan.tokens = tokens - 1;
    BOOST_CHECK_THROW(experts(), gf::argument_error);
    BOOST_CHECK_THROW(combine(), gf::argument_error);
    plan = p.memory.view(tokens);
    plan.place = {};
    BOOST_CHECK_THROW(combine(), gf::argument_error);
    plan = p.memory.view(tokens);
    BOOST_CHECK_THROW(gf::experts(p.ctx, p.w, p.in(), plan, p.routing(), p.z.view().slice(0, tokens)),
                      gf::argument_error);
    BOOST_CHECK_THROW(gf::combine(p.ctx, p.w, p.in(), plan, p.routing(), p.z.view().slice(1, tokens), p.y.view()),
                      gf::argument_error);
    // Plans that point outside.
    const auto spoil = [&](std::int32_t& entry, std::int32_t value) {
        const std::int32_t old = entry;
        entry = value;
        BOOST_CHECK_THROW(experts(), gf::argument_error);
        BOOST_CHECK_THROW(combine(), gf::argument_error);
        entry = old;
    };
    spoil(plan.offsets[0], -1);
    spoil(plan.offsets[3], tokens * mixtral::slots + 1);
    spoil(plan.offsets[4], -5);
    spoil(plan.rows[2], tokens * mixtral::slots);
    spoil(plan.rows[2], -1);
    spoil(plan.place[5], tokens * mixtral::slots);
    spoil(plan.place[5], -2);
    BOOST_TEST(std::memcmp(before.data(), p.y.data(), before.size() * sizeof(float)) == 0);
}

BOOST_AUTO_TEST_CASE(workspace_is_known_before_anything_is_made) {
    constexpr std::size_t forward = gf::forward_workspace_bytes<mixtral>(tokens, 2),
                          training = gf::training_workspace_bytes<mixtral>(tokens, 2);
    static_assert(forward > 0 && training >= forward);
    gf::context<gf::cpu> ctx(2);
    ctx.reserve<mixtral>(tokens);
    BOOST_TEST(ctx.workspace_bytes() == training);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
