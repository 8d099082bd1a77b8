// Routing by hand: the golden vectors of the semantics, the order of choice, weights that never become NaN, arguments.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/cpu/router/router.hpp>
#include <gatefold/moe/router_tables.hpp>

namespace {

namespace gf = gatefold;

constexpr double inf = std::numeric_limits<double>::infinity(), not_a_number = std::numeric_limits<double>::quiet_NaN();

struct routed {
    std::vector<int> ids;
    std::vector<double> weights;
    gf::routing_report report;
};

/// Routes one token whose logits are `z` (hidden = 1, x = 1; a bias carries what a product cannot).
template <class T, gf::router_config R, int E, int K>
routed route_logits(const std::vector<double>& z, const std::vector<double>& selection_bias = {}) {
    constexpr gf::config c{.hidden = 1, .ffn = 1, .experts = E, .top_k = K, .router = R};
    using L = gf::layer<c, T>;
    using A = typename L::accumulate_type;
    gf::context<gf::cpu> ctx(1);
    auto w = gf::make_weights<L>(ctx);
    for (int e = 0; e < E; ++e)
        w.router(e, 0) = gf::from_accumulate<typename L::router_type>(A(z[static_cast<std::size_t>(e)]));
    if constexpr (R.selection_bias != gf::key_bias::none)
        for (int e = 0; e < E; ++e) w.selection_bias.data()[e] = A(selection_bias[static_cast<std::size_t>(e)]);
    auto x = gf::make_tensor<T, gf::dyn, 1>(ctx, 1);
    x(0, 0) = gf::from_accumulate<T>(A(1));
    auto ids = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(ctx, 1);
    auto weights = gf::make_tensor<A, gf::dyn, L::slots>(ctx, 1);
    auto logits = gf::make_tensor<A, gf::dyn, L::choices>(ctx, 1);
    gf::route(ctx, w, {.x = x.view()}, {ids.view(), weights.view(), logits.view()});
    routed out;
    for (int s = 0; s < L::slots; ++s) {
        out.ids.push_back(ids(0, s));
        out.weights.push_back(static_cast<double>(weights(0, s)));
    }
    out.report = ctx.report();
    return out;
}

void check(const routed& r, const std::vector<int>& ids, const std::vector<double>& weights, double tolerance) {
    BOOST_TEST(r.ids == ids, boost::test_tools::per_element());
    for (std::size_t s = 0; s < weights.size(); ++s)
        BOOST_TEST(std::fabs(r.weights[s] - weights[s]) <= tolerance,
                   "slot " << s << ": " << r.weights[s] << ", expected " << weights[s]);
}

const std::vector<double> z{0.5, -1.25, 2.0, 0.75, -0.5, 1.5, 2.0, -3.0};
const std::vector<double> b{0.30, 0, -0.20, 0.35, 0.10, -0.05, 0, 0};

using gf::with;
constexpr gf::router_config one_group =
    with(gf::routers::deepseek_v3, &gf::router_config::groups, 1, &gf::router_config::kept_groups, 1,
         &gf::router_config::group_by, gf::group_key::none);
constexpr gf::router_config four_groups =
    with(gf::routers::deepseek_v3, &gf::router_config::groups, 4, &gf::router_config::kept_groups, 2);
constexpr gf::router_config v2_groups =
    with(gf::routers::deepseek_v2, &gf::router_config::groups, 4, &gf::router_config::kept_groups, 2);
constexpr gf::router_config v4_unbiased =
    with(gf::routers::deepseek_v4, &gf::router_config::selection_bias, gf::key_bias::none);

/// routing.md, section 11: A to I, in double to the digits given and in float.
template <class T>
void golden_vectors(double tolerance) {
    using namespace gf::routers;
    check(route_logits<T, olmoe, 8, 3>(z), {2, 6, 5}, {0.308283950, 0.308283950, 0.186983668}, tolerance);
    check(route_logits<T, mixtral, 8, 3>(z), {2, 6, 5}, {0.383651731, 0.383651731, 0.232696538}, tolerance);
    check(route_logits<T, granite, 8, 3>(z), {2, 6, 5}, {0.383651731, 0.383651731, 0.232696538}, tolerance);
    check(route_logits<T, one_group, 8, 3>(z, b), {3, 0, 6}, {0.778005605, 0.713033035, 1.008961360}, tolerance);
    check(route_logits<T, four_groups, 8, 3>(z, b), {3, 5, 2}, {0.714158090, 0.859681594, 0.926160316}, tolerance);
    check(route_logits<T, v2_groups, 8, 3>(z), {2, 6, 3}, {4.932543202, 4.932543202, 1.413197288}, 10 * tolerance);
    check(route_logits<T, llama4, 8, 1>(z), {2}, {0.880797078}, tolerance);
    check(route_logits<T, v4_unbiased, 8, 3>(z), {2, 6, 5}, {0.518243331, 0.518243331, 0.463513338}, tolerance);
    check(route_logits<T, phi_moe, 8, 2>(z), {2, 6}, {0.5, 1.0}, tolerance);
    check(route_logits<T, phi_moe, 4, 2>({1.00, 1.01, 0.5, 1.005}), {1, 3}, {0.335001382, 0.501249997}, 4 * tolerance);
    check(route_logits<T, ernie, 8, 3>(z, {0.05, 0, -0.2, 0.1, 0, 0, 0, 0}), {6, 3, 5},
          {0.528252124, 0.151346767, 0.320401109}, tolerance);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(router)

BOOST_AUTO_TEST_CASE(golden_vectors_in_double) { golden_vectors<double>(1e-9); }
BOOST_AUTO_TEST_CASE(golden_vectors_in_float) { golden_vectors<float>(1e-6); }

BOOST_AUTO_TEST_CASE(softmax_then_choice_is_choice_then_softmax) {
    for (int i = 0; i < 50; ++i) {
        std::vector<double> logits;
        for (int e = 0; e < 8; ++e) logits.push_back(3 * std::sin(1 + 7.3 * e + i * e + i));
        const routed before = route_logits<double, gf::routers::mixtral, 8, 3>(logits);
        const routed after = route_logits<double, gf::routers::granite, 8, 3>(logits);
        check(before, after.ids, after.weights, 1e-15);
        // And the order of a score without a bias is that of the logits.
        BOOST_TEST((route_logits<double, v4_unbiased, 8, 3>(logits).ids == after.ids));
    }
}

BOOST_AUTO_TEST_CASE(scores_make_no_ties) {
    // The sigmoid of 17 and of 25 is 1 in float; the logits differ.
    constexpr gf::router_config sigmoid{.from = gf::score::sigmoid};
    check(route_logits<float, sigmoid, 3, 1>({17, 25, 3}), {1}, {1}, 1e-6);
    check(route_logits<float, gf::routers::olmoe, 3, 2>({-300, 0, -200}), {1, 2}, {1, 0}, 0);
}

BOOST_AUTO_TEST_CASE(ties_go_to_the_lower_expert) {
    check(route_logits<double, gf::routers::olmoe, 4, 4>({1, 1, 1, 1}), {0, 1, 2, 3}, {.25, .25, .25, .25}, 0);
    check(route_logits<double, gf::routers::olmoe, 3, 2>({0.0, -0.0, -1}), {0, 1}, {}, 0);
    check(route_logits<double, gf::routers::olmoe, 3, 2>({-0.0, 0.0, -1}), {0, 1}, {}, 0);
    check(route_logits<double, v2_groups, 8, 2>({1, 0, 1, 0, 1, 0, 1, 0}), {0, 2}, {}, 0);
}

BOOST_AUTO_TEST_CASE(broken_logits_are_data) {
    using gf::routers::mixtral, gf::routers::olmoe;
    routed r = route_logits<double, mixtral, 4, 2>({not_a_number, 1, -inf, 0});
    check(r, {1, 3}, {0.7310585786, 0.2689414214}, 1e-9);
    BOOST_TEST(r.report.nan_logits == 1);
    BOOST_TEST(r.report.infinite_logits == 1);
    BOOST_TEST(r.report.undecided == 0);
    BOOST_TEST(r.report.tokens == 1);

    r = route_logits<double, mixtral, 4, 2>({not_a_number, 1, not_a_number, not_a_number});
    check(r, {1, 0}, {1, 0}, 0);  // NaN ties with -inf: by index
    check(route_logits<double, mixtral, 4, 2>({not_a_number, -inf, 2, -inf}), {2, 0}, {1, 0}, 0);
    check(route_logits<double, olmoe, 4, 3>({5, inf, 7, inf}), {1, 3, 2}, {0.5, 0.5, 0}, 0);

    r = route_logits<double, gf::routers::glm4_moe, 4, 2>({not_a_number, -inf, not_a_number, not_a_number},
                                                          {0, 1, 2, 3});
    check(r, {0, 1}, {1.25, 1.25}, 0);  // 1/k times scale, whatever the bias
    BOOST_TEST(r.report.undecided == 1);
    BOOST_TEST(r.report.nan_logits == 3);

    constexpr gf::router_config softplus{.from = gf::score::sqrt_softplus, .renorm = gf::renormalise::sum};
    check(route_logits<double, softplus, 4, 3>({inf, 1, inf, 0}), {0, 2, 1}, {0.5, 0.5, 0}, 0);
    // Scores that vanish have nothing to be divided by.
    constexpr gf::router_config sigmoid{.from = gf::score::sigmoid, .renorm = gf::renormalise::sum};
    check(route_logits<float, sigmoid, 3, 2>({-200, -300, -250}), {0, 2}, {0, 0}, 0);
}

BOOST_AUTO_TEST_CASE(masks_of_groups) {
    // Negative biased keys inside the kept group: a mask of zero lets experts of other groups in, -inf does not.
    constexpr gf::router_config base{.from = gf::score::sigmoid,
                                     .selection_bias = gf::key_bias::score,
                                     .groups = 2,
                                     .kept_groups = 1,
                                     .group_by = gf::group_key::top2_sum};
    constexpr gf::router_config zero = with(base, &gf::router_config::masked, gf::group_mask::zero);
    const std::vector<double> logits{2, 1, 0, -1}, bias{-1.5, -1.5, -1.9, -1.9};
    check(route_logits<double, base, 4, 2>(logits, bias), {0, 1}, {}, 0);
    check(route_logits<double, zero, 4, 2>(logits, bias), {2, 3}, {}, 0);
}

BOOST_AUTO_TEST_CASE(scale_and_division_are_independent) {
    // Every score with and without division, with and without a scale: a kind of fault that several libraries shipped.
    const auto sum = [](const routed& r) { return r.weights[0] + r.weights[1]; };
    const std::vector<double> logits{-0.5, -1.5, -1.0, -2.5};
    const auto all = [&]<gf::score From, gf::renormalise How>() {
        constexpr gf::router_config plain{.from = From, .renorm = How};
        constexpr gf::router_config scaled{.from = From, .renorm = How, .scale = 2.5f};
        const routed one = route_logits<double, plain, 4, 2>(logits), more = route_logits<double, scaled, 4, 2>(logits);
        for (std::size_t s = 0; s < 2; ++s) BOOST_TEST(std::fabs(more.weights[s] - 2.5 * one.weights[s]) < 1e-14);
        if (How == gf::renormalise::sum || From == gf::score::softmax_selected)
            BOOST_TEST(std::fabs(sum(more) - 2.5) < 1e-14);
        else
            BOOST_TEST(std::fabs(sum(one) - 1) > 1e-3);
        BOOST_TEST(one.weights[0] > 0);
    };
    all.template operator()<gf::score::softmax, gf::renormalise::none>();
    all.template operator()<gf::score::softmax, gf::renormalise::sum>();
    all.template operator()<gf::score::softmax_selected, gf::renormalise::none>();
    all.template operator()<gf::score::sigmoid, gf::renormalise::none>();
    all.template operator()<gf::score::sigmoid, gf::renormalise::sum>();
    all.template operator()<gf::score::sqrt_softplus, gf::renormalise::none>();
    all.template operator()<gf::score::sqrt_softplus, gf::renormalise::sum>();
}

BOOST_AUTO_TEST_CASE(storage_precision_rounds) {
    constexpr gf::router_config fine{.weights = gf::precision::accumulate, .from = gf::score::sigmoid};
    constexpr gf::router_config logits = with(fine, &gf::router_config::logits_in, gf::precision::storage);
    constexpr gf::router_config scores = with(fine, &gf::router_config::scores_in, gf::precision::storage);
    const std::vector<double> close{1.0, 1.001, 0.5};  // equal in bf16
    BOOST_TEST((route_logits<gf::bf16, fine, 3, 1>(close).ids[0] == 1));
    BOOST_TEST((route_logits<gf::bf16, logits, 3, 1>(close).ids[0] == 0));
    const double w = route_logits<gf::bf16, scores, 3, 1>(close).weights[0];
    BOOST_TEST(w == static_cast<double>(static_cast<float>(gf::bf16(static_cast<float>(w)))));
    BOOST_TEST(w != (route_logits<gf::bf16, fine, 3, 1>(close).weights[0]));
}

BOOST_AUTO_TEST_CASE(wrong_arguments_write_nothing) {
    using L =
        gf::layer<gf::config{.hidden = 4, .ffn = 2, .experts = 5, .top_k = 2, .router = gf::routers::mixtral}, float>;
    gf::context<gf::cpu> ctx(1);
    const auto w = gf::make_weights<L>(ctx);
    auto x = gf::make_tensor<float, gf::dyn, 4>(ctx, 3);
    x.set_zero();
    auto ids = gf::make_tensor<std::int32_t, gf::dyn, 2>(ctx, 3),
         short_ids = gf::make_tensor<std::int32_t, gf::dyn, 2>(ctx, 2);
    auto weights = gf::make_tensor<float, gf::dyn, 2>(ctx, 3);
    auto logits = gf::make_tensor<float, gf::dyn, 5>(ctx, 3);
    for (int i = 0; i < 6; ++i) ids.data()[i] = 77, weights.data()[i] = 77;
    const auto says = [&](const std::string& text, const gf::batch<L>& in, const gf::routing_view<L>& out,
                          const gf::options<L>& o) {
        BOOST_CHECK_EXCEPTION(gf::route(ctx, w, in, out, o), gf::argument_error, [&](const gf::argument_error& e) {
            BOOST_TEST(std::string(e.what()).find(text) != std::string::npos, e.what());
            return true;
        });
        for (int i = 0; i < 6; ++i) BOOST_TEST((ids.data()[i] == 77 && weights.data()[i] == 77.0f));
    };
    const gf::routing_view<L> out{ids.view(), weights.view(), logits.view()};
    says("gatefold::route: ids: expected 3 rows, got 2", {.x = x.view()},
         {short_ids.view(), weights.view(), logits.view()}, {});
    says("gatefold::route: weights: expected memory, got null", {.x = x.view()},
         {ids.view(), {nullptr, {3, 2}}, logits.view()}, {});
    says("gatefold::route: options.noise: expected zero", {.x = x.view()}, out, {.noise = 0.5f});
    says("gatefold::route: options.threshold: expected zero", {.x = x.view()}, out, {.threshold = 0.5f});
    std::vector<std::int32_t> given{0, 1, 2, 3, 4, 5};
    gf::batch<L> in{.x = x.view()};
    in.chosen = {given.data(), {3, 2}};
    says("gatefold::route: chosen: expected ids from -1 to 4, got 5", in, out, {});
    in.chosen = {};
    in.x = {x.data(), {0, 4}};
    gf::route(ctx, w, in, {{nullptr, {0, 2}}, {nullptr, {0, 2}}, {nullptr, {0, 5}}});
    BOOST_TEST(ctx.report().tokens == 0);
}

BOOST_AUTO_TEST_CASE(ids_from_outside_are_taken) {
    using L =
        gf::layer<gf::config{.hidden = 1, .ffn = 1, .experts = 4, .top_k = 2, .router = gf::routers::mixtral}, double>;
    gf::context<gf::cpu> ctx(1);
    auto w = gf::make_weights<L>(ctx);
    for (int e = 0; e < 4; ++e) w.router(e, 0) = e;
    auto x = gf::make_tensor<double, gf::dyn, 1>(ctx, 2);
    x(0, 0) = x(1, 0) = 1;
    auto ids = gf::make_tensor<std::int32_t, gf::dyn, 2>(ctx, 2);
    auto weights = gf::make_tensor<double, gf::dyn, 2>(ctx, 2);
    auto logits = gf::make_tensor<double, gf::dyn, 4>(ctx, 2);
    const std::int32_t given[] = {0, 1, 2, -1};
    gf::batch<L> in{.x = x.view()};
    in.chosen = {given, {2, 2}};
    gf::route(ctx, w, in, {ids.view(), weights.view(), logits.view()});
    for (int i = 0; i < 4; ++i) BOOST_TEST(ids.data()[i] == given[i]);
    BOOST_TEST(std::fabs(weights(0, 1) - 0.7310585786) < 1e-9);
    BOOST_TEST(weights(1, 0) == 1);
    BOOST_TEST(weights(1, 1) == 0);
}

BOOST_AUTO_TEST_CASE(tables) {
    gf::context<gf::cpu> ctx(1);
    constexpr gf::index_t ids = 1000;
    auto table = gf::make_tensor<std::int32_t, gf::dyn, 2>(ctx, ids);
    const auto load_of = [&](auto weight) {
        std::vector<double> load(5);
        for (gf::index_t v = 0; v < ids; ++v)
            for (int s = 0; s < 2; ++s) load[static_cast<std::size_t>(table(v, s))] += weight(v);
        return load;
    };
    const auto distinct = [&] {
        bool all = true;
        for (gf::index_t v = 0; v < ids; ++v)
            all = all && table(v, 0) != table(v, 1) && table(v, 0) >= 0 && table(v, 0) < 5 && table(v, 1) >= 0 &&
                  table(v, 1) < 5;
        return all;
    };
    gf::modulo_table(table.view(), 5);
    BOOST_TEST(distinct());
    BOOST_TEST(table(7, 0) == 2);
    BOOST_TEST(table(4, 1) == 0);

    gf::random_table(table.view(), 5, 3);
    BOOST_TEST(distinct());
    for (const double n : load_of([](gf::index_t) { return 1.0; })) BOOST_TEST(std::fabs(n - 400) < 80);

    std::vector<double> frequencies;  // a few ids make up most of the text
    for (gf::index_t v = 0; v < ids; ++v) frequencies.push_back(1.0 / static_cast<double>(1 + (v * 37) % ids));
    gf::balanced_table(table.view(), {frequencies.data(), {ids}}, 5);
    BOOST_TEST(distinct());
    const auto load = load_of([&](gf::index_t v) { return frequencies[static_cast<std::size_t>(v)]; });
    for (const double n : load) BOOST_TEST(std::fabs(n / load[0] - 1) < 0.01);

    const std::int32_t text[] = {3, 999, 3};
    auto chosen = gf::make_tensor<std::int32_t, gf::dyn, 2>(ctx, 3);
    gf::look_up(table.view(), {text, {3}}, chosen.view());
    for (int s = 0; s < 2; ++s) {
        BOOST_TEST(chosen(0, s) == table(3, s));
        BOOST_TEST(chosen(1, s) == table(999, s));
        BOOST_TEST(chosen(2, s) == table(3, s));
    }
    const std::int32_t unknown[] = {0, 1, 1000};
    BOOST_CHECK_THROW(gf::look_up(table.view(), {unknown, {3}}, chosen.view()), gf::argument_error);
    BOOST_TEST(chosen(0, 0) == table(3, 0));
    BOOST_CHECK_THROW(gf::modulo_table(table.view(), 1), gf::argument_error);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
