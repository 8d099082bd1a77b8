// Capacity by hand: what each rule makes of a group, and who keeps a place under each priority.
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/cpu/router/router.hpp>
#include <gatefold/moe/capacity.hpp>

namespace {

namespace gf = gatefold;
using gf::capacity_rule;
using gf::priority;

gf::index_t rows(gf::capacity_config c, gf::index_t tokens, int experts, int k, bool training = false,
                 gf::index_t largest_load = 0) {
    return gf::capacity_of(c, c.factor, tokens, experts, k, training, largest_load);
}

/// A layer of 3 experts with 2 choices each whose logits are given.
constexpr gf::config layer_config(gf::capacity_config capacity) {
    return {.hidden = 3,
            .ffn = 1,
            .experts = 3,
            .top_k = 2,
            .router = {.renorm = gf::renormalise::sum},
            .capacity = capacity};
}

struct outcome {
    std::vector<int> kept;  ///< T * S
    std::vector<double> weights;
    gf::index_t dropped = 0;
};

/// Applies a capacity to tokens whose logits are the rows of `logits`.
template <gf::capacity_config C>
outcome apply(const std::vector<std::vector<double>>& logits, float factor,
              const std::vector<std::int32_t>& starts = {}) {
    using L = gf::layer<layer_config(C), double>;
    gf::context<gf::cpu> ctx(1);
    auto w = gf::make_weights<L>(ctx);
    for (int e = 0; e < 3; ++e) w.router(e, e) = 1;  // logits are the input
    const auto tokens = static_cast<gf::index_t>(logits.size());
    auto x = gf::make_tensor<double, gf::dyn, 3>(ctx, tokens);
    for (gf::index_t t = 0; t < tokens; ++t)
        for (int e = 0; e < 3; ++e) x(t, e) = logits[static_cast<std::size_t>(t)][static_cast<std::size_t>(e)];
    auto ids = gf::make_tensor<std::int32_t, gf::dyn, 2>(ctx, tokens);
    auto weights = gf::make_tensor<double, gf::dyn, 2>(ctx, tokens);
    auto z = gf::make_tensor<double, gf::dyn, 3>(ctx, tokens);
    auto kept = gf::make_tensor<std::uint8_t, gf::dyn>(ctx, 2 * tokens);
    gf::batch<L> in{.x = x.view()};
    if (!starts.empty()) in.sequence_starts = {starts.data(), {static_cast<gf::index_t>(starts.size())}};
    gf::options<L> o;
    o.capacity_factor = factor;
    gf::route(ctx, w, in, {ids.view(), weights.view(), z.view()}, o);
    gf::apply_capacity(ctx, in, {ids.view(), weights.view(), z.view()}, kept.view(), o);
    outcome out;
    for (gf::index_t i = 0; i < 2 * tokens; ++i) {
        out.kept.push_back(kept.data()[i]);
        out.weights.push_back(weights.data()[i]);
    }
    out.dropped = ctx.report().dropped;
    return out;
}

// Choices, first then second: (0 1) (0 1) (1 0) (0 2).
const std::vector<std::vector<double>> four{{2, 1, 0}, {5, 1, 0}, {1, 3, 0}, {4, 0, 1}};
// Rows per expert of the megatron rule: ceil(4 · 2/3 · factor).
constexpr float takes_two = 0.75f;

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(capacity)

BOOST_AUTO_TEST_CASE(rules) {
    BOOST_TEST(rows({.rule = capacity_rule::mesh, .factor = 1.25f}, 100, 8, 2) == 15);
    BOOST_TEST(rows({.rule = capacity_rule::mesh, .factor = 1.25f}, 10, 8, 2) == 4);    // at least 4
    BOOST_TEST(rows({.rule = capacity_rule::mesh, .factor = 100.0f}, 10, 8, 2) == 10);  // at most the group
    BOOST_TEST(rows({.rule = capacity_rule::flaxformer, .factor = 1}, 36, 8, 1) == 4);  // 4.5 to even
    BOOST_TEST(rows({.rule = capacity_rule::flaxformer, .factor = 1}, 44, 8, 1) == 6);  // 5.5 to even
    BOOST_TEST(rows({.rule = capacity_rule::flaxformer, .factor = 1}, 45, 8, 1) == 6);
    BOOST_TEST(rows({.rule = capacity_rule::megatron, .factor = 1.1f}, 40, 8, 2) == 11);  // 1.1, not 1.10000002
    BOOST_TEST(rows({.rule = capacity_rule::megatron, .factor = 1.1f}, 41, 8, 2) == 12);
    BOOST_TEST(rows({.rule = capacity_rule::megatron, .factor = 0.1f, .minimum = 5}, 10, 8, 2) == 5);
    BOOST_TEST(rows({.rule = capacity_rule::deepspeed, .factor = 1.5f}, 17, 8, 2) == 8);
    BOOST_TEST(rows({.rule = capacity_rule::deepspeed, .factor = 1.5f, .alignment = 3}, 17, 8, 2) == 9);
    BOOST_TEST(rows({.rule = capacity_rule::deepspeed, .factor = 0}, 17, 8, 2, false, 13) == 13);
    BOOST_TEST(rows({.rule = capacity_rule::deepspeed, .factor = -1}, 17, 8, 2, false, 13) == 6);
    BOOST_TEST(rows({.rule = capacity_rule::nllb, .factor = 0.5f}, 17, 8, 2) == 9);
    BOOST_TEST(rows({.rule = capacity_rule::nllb, .factor = 0.5f}, 17, 8, 2, true) == 6);
    BOOST_TEST(rows({.rule = capacity_rule::nllb}, 17, 8, 2) == 6);
    BOOST_TEST(rows({.rule = capacity_rule::hunyuan}, 17, 8, 2) == 4);
    BOOST_TEST(rows({.rule = capacity_rule::hunyuan}, 1, 8, 2) == 2);
    BOOST_TEST(rows({.rule = capacity_rule::mesh, .factor = 1.0f / 3}, 240, 8, 2) == 10);  // 1/3, not 0.333333
    BOOST_TEST(rows({.rule = capacity_rule::megatron, .factor = 0.7f}, 80, 8, 1) == 7);
    BOOST_TEST(rows({}, 17, 8, 2) == 34);
    // Usable where a configuration is: in constant expressions.
    static_assert(gf::capacity_of({.rule = capacity_rule::megatron}, 1.25f, 64, 8, 2, false, 0) == 20);
}

BOOST_AUTO_TEST_CASE(slot_major) {
    constexpr gf::capacity_config c{.rule = capacity_rule::megatron, .factor = takes_two};
    const outcome r = apply<c>(four, takes_two);
    // First choices: 0 of tokens 0, 1 (token 3 is third), 1 of token 2. Then second choices: 1 of token 0; 0 is full.
    BOOST_TEST((r.kept == std::vector<int>{1, 1, 1, 0, 1, 0, 0, 1}));
    BOOST_TEST(r.dropped == 3);
    BOOST_TEST(r.weights[3] == 0);
    BOOST_TEST(r.weights[0] + r.weights[1] == 1, boost::test_tools::tolerance(1e-15));
    BOOST_TEST(r.weights[2] > 0.9);  // not divided anew
}

BOOST_AUTO_TEST_CASE(offsets_count_all_or_kept) {
    // An expert that turned a first choice away is full, so behind all or behind the kept there is no place either way.
    constexpr gf::capacity_config all{.rule = capacity_rule::megatron, .factor = 1};
    constexpr gf::capacity_config kept{.rule = capacity_rule::megatron, .factor = 1, .behind = gf::offset_by::kept};
    const std::vector<std::vector<double>> tokens{{2, 0, 1}, {2, 1, 0}, {0, 2, 1}, {0, 2, 1}, {1, 0, 2}, {3, 2, 0}};
    for (const float factor : {0.2f, 0.3f, 0.5f, 0.75f, 1.0f})
        BOOST_TEST((apply<all>(tokens, factor).kept == apply<kept>(tokens, factor).kept));
    // Choices (0 2) (0 1) (1 2) (1 2) (2 0) (0 1); one row each.
    BOOST_TEST((apply<all>(tokens, 0.2f).kept == std::vector<int>{1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0}));
}

BOOST_AUTO_TEST_CASE(probability) {
    constexpr gf::capacity_config c{
        .rule = capacity_rule::megatron, .factor = takes_two, .keeps = priority::probability};
    // Weights of expert 0: .73 .98 .12 .95: tokens 1 and 3. Of expert 1: .27 .02 .88: tokens 2 and 0.
    BOOST_TEST((apply<c>(four, takes_two).kept == std::vector<int>{0, 1, 1, 0, 1, 0, 1, 1}));
}

BOOST_AUTO_TEST_CASE(importance) {
    constexpr gf::capacity_config c{
        .rule = capacity_rule::megatron, .factor = takes_two, .keeps = priority::importance};
    // By best probability: tokens 1, 3, 2, 0. First choices of expert 0: 1 and 3; second of expert 1: 1 beside token 2.
    BOOST_TEST((apply<c>(four, takes_two).kept == std::vector<int>{0, 0, 1, 1, 1, 0, 1, 1}));
}

BOOST_AUTO_TEST_CASE(position) {
    constexpr gf::capacity_config c{.rule = capacity_rule::megatron, .factor = takes_two, .keeps = priority::position};
    // Expert 0 takes tokens 0 and 1, expert 1 their second choices.
    BOOST_TEST((apply<c>(four, takes_two).kept == std::vector<int>{1, 1, 1, 1, 0, 0, 0, 1}));
}

BOOST_AUTO_TEST_CASE(groups_of_tokens) {
    constexpr gf::capacity_config pairs{
        .rule = capacity_rule::megatron, .factor = takes_two, .shared_by = gf::capacity_group::fixed, .group_size = 2};
    // ceil(2 · 2/3 · .75) = 1 row per expert and group.
    BOOST_TEST((apply<pairs>(four, takes_two).kept == std::vector<int>{1, 1, 0, 0, 1, 0, 1, 1}));
    constexpr gf::capacity_config sequences{
        .rule = capacity_rule::megatron, .factor = takes_two, .shared_by = gf::capacity_group::sequence};
    BOOST_TEST((apply<sequences>(four, takes_two, {0, 2}).kept == std::vector<int>{1, 1, 0, 0, 1, 0, 1, 1}));
    BOOST_TEST((apply<sequences>(four, takes_two, {0, 0, 1, 4}).dropped == 1));
}

BOOST_AUTO_TEST_CASE(survivors_divided_anew) {
    constexpr gf::capacity_config c{.rule = capacity_rule::megatron, .factor = takes_two, .renormalise_kept = true};
    const outcome r = apply<c>(four, takes_two);
    BOOST_TEST((r.kept == std::vector<int>{1, 1, 1, 0, 1, 0, 0, 1}));
    BOOST_TEST(r.weights[2] == 1);
    BOOST_TEST(r.weights[7] == 1);
    BOOST_TEST(r.weights[6] == 0);
}

BOOST_AUTO_TEST_CASE(room_for_all_changes_nothing) {
    constexpr gf::capacity_config c{.rule = capacity_rule::megatron, .factor = 100};
    const outcome r = apply<c>(four, 100);
    BOOST_TEST(r.dropped == 0);
    for (const int k : r.kept) BOOST_TEST(k == 1);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
