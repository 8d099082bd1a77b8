// Padding to the capacity: experts that see exactly C rows, zeros among them, give the layer that drops without
// padding.
#include <cstring>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>
#include <gatefold/moe/combine.hpp>
#include <gatefold/moe/make_plan.hpp>
#include <gatefold/moe/pad.hpp>

namespace gf = gatefold;

namespace {

constexpr gf::config dropping{.hidden = 18,
                              .ffn = 7,
                              .experts = 4,
                              .top_k = 2,
                              .bias = true,
                              .router = {.renorm = gf::renormalise::sum},
                              .capacity = {.rule = gf::capacity_rule::megatron, .factor = 0.75f},
                              .shared = {.ffn = 5}};

template <class T>
void check(gf::index_t tokens) {
    using L = gf::layer<dropping, T>;
    using one = gf::layer<gf::config{.hidden = 18, .ffn = 7, .bias = true}, T>;
    using A = typename L::accumulate_type;
    gf::context<gf::cpu> ctx(2);
    auto w = gf::random_weights<L>(ctx, gf::seed{3});
    // Biases, so that rows of zeros return something.
    for (gf::index_t i = 0; i < w.gate_up_bias.size(); ++i) w.gate_up_bias.data()[i] = T(A(0.1) * A(i % 7));
    for (gf::index_t i = 0; i < w.down_bias.size(); ++i) w.down_bias.data()[i] = T(A(0.2) * A(i % 5));
    auto x = gf::make_tensor<T, gf::dyn, 18>(ctx, tokens), y = gf::make_tensor<T, gf::dyn, 18>(ctx, tokens),
         expected = gf::make_tensor<T, gf::dyn, 18>(ctx, tokens);
    for (gf::index_t i = 0; i < x.size(); ++i) x.data()[i] = T(A((i * 37 % 23) - 11) / A(6));
    gf::batch<L> in;
    in.x = x.view();
    gf::tape<L> tape(ctx, tokens);
    gf::forward(ctx, w, in, expected.view(), tape);
    BOOST_TEST(ctx.report().dropped > 0);

    const gf::index_t C = gf::capacity_of(dropping.capacity, 0.75f, tokens, 4, 2, false, 0);
    auto pairs = gf::make_tensor<std::int32_t, gf::dyn, gf::dyn>(ctx, 4, C);
    gf::pad_plan(tape.plan(), pairs.view());
    auto blocks = gf::make_tensor<T, gf::dyn, 18>(ctx, 4 * C), returned = gf::make_tensor<T, gf::dyn, 18>(ctx, 4 * C);
    gf::gather_padded(gf::view<const T, gf::dyn, 18>(x.view()), pairs.view(), 2, blocks.view());
    auto alone = gf::make_weights<one>(ctx);
    for (int e = 0; e < 4; ++e) {
        const auto from = w.expert(e);
        std::memcpy(alone.gate_up.data(), from.gate_up.data(), sizeof(T) * 14 * 18);
        std::memcpy(alone.down.data(), from.down.data(), sizeof(T) * 18 * 7);
        std::memcpy(alone.gate_up_bias.data(), from.gate_up_bias.data(), sizeof(T) * 14);
        std::memcpy(alone.down_bias.data(), from.down_bias.data(), sizeof(T) * 18);
        gf::forward(ctx, alone, gf::view<const T, gf::dyn, 18>(blocks.view().slice(e * C, C)),
                    returned.view().slice(e * C, C));
    }
    auto z = gf::make_tensor<T, gf::dyn, 18>(ctx, tokens * 2);
    gf::unpad(gf::view<const T, gf::dyn, 18>(returned.view()), tape.plan(), z.view());
    gf::combine(ctx, w, in, tape.plan(), tape.routing(), gf::view<const T, gf::dyn, 18>(z.view()), y.view());
    BOOST_TEST((std::memcmp(y.data(), expected.data(), sizeof(T) * static_cast<std::size_t>(y.size())) == 0));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(pad)

BOOST_AUTO_TEST_CASE(padded_experts_give_the_same_bits) {
    check<float>(37);
    check<double>(12);
}

BOOST_AUTO_TEST_CASE(pairs_that_do_not_fit) {
    using L = gf::layer<gf::config{.hidden = 2, .ffn = 1, .experts = 3, .top_k = 1}, float>;
    gf::context<gf::cpu> ctx(1);
    const std::vector<std::int32_t> ids = {2, 0, 2, 2};
    gf::plan<L> plan(ctx, 4);
    const auto p = plan.view(4);
    gf::make_plan<L>(ctx, gf::view<const std::int32_t, gf::dyn, 1>(ids.data(), {4, 1}), p);
    std::vector<std::int32_t> pairs(9, 7);
    gf::pad_plan(p, {pairs.data(), {3, 3}});
    BOOST_TEST(pairs == (std::vector<std::int32_t>{1, -1, -1, -1, -1, -1, 0, 2, 3}), boost::test_tools::per_element());
    pairs.assign(9, 7);
    BOOST_CHECK_THROW(gf::pad_plan(p, {pairs.data(), {3, 2}}), gf::argument_error);
    BOOST_CHECK_THROW(gf::pad_plan(p, {pairs.data(), {2, 3}}), gf::argument_error);
    BOOST_TEST(pairs == std::vector<std::int32_t>(9, 7), boost::test_tools::per_element());
    std::vector<float> x(8, 1), blocks(18, 5);
    pairs.assign(9, 4);
    BOOST_CHECK_THROW(gf::gather_padded(gf::view<const float, gf::dyn, 2>(x.data(), {4, 2}), {pairs.data(), {3, 3}}, 1,
                                        {blocks.data(), {9, 2}}),
                      gf::argument_error);
    BOOST_TEST(blocks == std::vector<float>(18, 5), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
