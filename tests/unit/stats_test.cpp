// ctest: heavy
// Metrics of a routing: against the oracle, by hand, over windows, as text and JSON.
#include <nlohmann/json.hpp>

#include <gatefold/moe/stats_report.hpp>

#include "loss_routing.hpp"

namespace {

using namespace loss_routing;

using L = gf::layer<around<6, 2>(gf::routers::olmoe), double>;

constexpr gf::config with_capacity(gf::capacity_config capacity) {
    gf::config c = around<6, 2>(gf::routers::olmoe);
    c.capacity = capacity;
    return c;
}

bool near(double a, double b, double tolerance = 1e-13) { return std::fabs(a - b) <= tolerance * (1 + std::fabs(b)); }

void check_balance(const gf::balance_metrics& m, const std::vector<double>& c) {
    BOOST_TEST(near(m.max_violation, oracle::max_violation(c)));
    BOOST_TEST(near(m.min_violation, oracle::min_violation(c)));
    BOOST_TEST(near(m.mean_violation, oracle::mean_violation(c)));
    BOOST_TEST(near(m.variation, oracle::variation(c)));
    BOOST_TEST(near(m.entropy, oracle::load_entropy(c)));
    BOOST_TEST(near(m.effective_experts, oracle::effective_experts(c)));
    BOOST_TEST(near(m.participation, oracle::participation_ratio(c)));
    BOOST_TEST(m.dead == static_cast<int>(oracle::dead_experts(c)));
    BOOST_TEST(m.starved == static_cast<int>(oracle::dead_experts(c, 0.01)));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(stats)

BOOST_AUTO_TEST_CASE(published_values) {
    const std::vector<gf::index_t> counts = {2, 1, 1};
    const std::vector<double> mean = {0.412232612, 0.372096135, 0.215671253};
    BOOST_TEST(gf::balance_of({counts.data(), {3}}).max_violation == 0.5);
    BOOST_TEST(near(gf::balance_of<double>({mean.data(), {3}}).entropy, 0.9684965506368809, 1e-8));
    using one = gf::layer<around<3, 1>(gf::routers::olmoe), double>;
    routed<one> r({1, 0, -1, 0, 2, 0, 0.5, 0.5, 1.5, 2, 1, 0});
    gf::routing_window<one> window(r.ctx);
    window.add(r.tape);
    BOOST_TEST(near(window.metrics().utilisation_entropy, 0.9684965506368809, 1e-14));
    BOOST_TEST(window.metrics().load.max_violation == 0.5);
}

BOOST_AUTO_TEST_CASE(loads_are_the_oracles) {
    for (const std::vector<gf::index_t>& counts :
         {std::vector<gf::index_t>{3, 0, 7, 1, 4}, {5, 5, 5}, {1000, 1, 9, 0, 0, 0}, {8}}) {
        const std::vector<double> numbers(counts.begin(), counts.end());
        const auto m = gf::balance_of({counts.data(), {static_cast<gf::index_t>(counts.size())}});
        if (counts.size() > 1)
            check_balance(m, numbers);
        else
            BOOST_TEST(m.entropy == 1);
    }
    const std::vector<gf::index_t> nothing(4, 0);
    BOOST_TEST(gf::balance_of({nothing.data(), {4}}).max_violation == 0);
    BOOST_TEST(gf::balance_of({nothing.data(), {4}}).dead == 0);
}

BOOST_AUTO_TEST_CASE(a_window_over_two_calls) {
    routed<L> a(random_logits(21, 6, 1)), b(random_logits(17, 6, 2));
    gf::routing_window<L> window(a.ctx);
    window.add(a.tape);
    window.add(b.tape);
    const gf::routing_metrics m = window.metrics();
    auto in = a.input();
    const auto more = b.input();
    in.p.insert(in.p.end(), more.p.begin(), more.p.end());
    in.ids.insert(in.ids.end(), more.ids.begin(), more.ids.end());
    BOOST_TEST(m.steps == 2);
    BOOST_TEST(m.tokens == 38);
    check_balance(m.load, oracle::expert_counts(in.ids, 6));
    BOOST_TEST(near(m.utilisation_entropy, oracle::utilisation_entropy(in.p, 38, 6)));
    BOOST_TEST(near(m.confidence_entropy, oracle::confidence_entropy(in.p, 38, 6)));
    BOOST_TEST(near(m.batch_violation, (oracle::max_violation(oracle::expert_counts(a.input().ids, 6)) +
                                        oracle::max_violation(oracle::expert_counts(more.ids, 6))) /
                                           2));
    auto z = a.logits();
    for (double v : b.logits()) z.push_back(v);
    BOOST_TEST(near(m.logit_rms, oracle::root_mean_square(z)));
    double largest = 0;
    for (double v : z) largest = std::fmax(largest, std::fabs(v));
    BOOST_TEST(m.logit_max == largest);
    BOOST_TEST(m.experts_per_token == 2);
    BOOST_TEST(m.drop_rate == 0);
    BOOST_TEST(m.usage == 0);
    std::vector<double> importance(6, 0.0);
    for (std::size_t i = 0; i < in.ids.size(); ++i)
        importance[static_cast<std::size_t>(in.ids[i])] += in.p[i / 2 * 6 + static_cast<std::size_t>(in.ids[i])];
    check_balance(m.importance, importance);
    const auto both = oracle::co_activation(in.ids, 2, 6);
    for (int i = 0; i < 6; ++i)
        for (int j = 0; j < 6; ++j)
            BOOST_TEST(near(window.co_activation(i, j), both[static_cast<std::size_t>(6 * i + j)]));
    window.clear();
    BOOST_TEST(window.metrics().tokens == 0);
    BOOST_TEST(window.metrics().load.entropy == 0);
}

BOOST_AUTO_TEST_CASE(padding_is_left_out) {
    auto z = random_logits(5, 6, 3);
    routed<L> r(z);
    const std::vector<std::uint8_t> mask = {1, 0, 1, 1, 0};
    r.in.mask = {mask.data(), {5}};
    gf::routing_window<L> window(r.ctx), unpadded(r.ctx);
    window.add(r.tape, r.in);
    std::vector<double> kept;
    for (std::size_t t : {0u, 2u, 3u})
        kept.insert(kept.end(), z.begin() + 6 * static_cast<long>(t), z.begin() + 6 * static_cast<long>(t) + 6);
    routed<L> without(kept);
    unpadded.add(without.tape);
    const std::vector<gf::routing_metrics> one = {window.metrics()}, other = {unpadded.metrics()};
    BOOST_TEST(gf::routing_json(one) == gf::routing_json(other));
    std::vector<gf::index_t> counts(6, 0);
    gf::add_expert_counts(r.tape.routing().ids, {counts.data(), {6}}, {mask.data(), {5}});
    for (int i = 0; i < 6; ++i) BOOST_TEST(counts[static_cast<std::size_t>(i)] == window.counts(i));
}

template <gf::capacity_config C>
void check_drops(const char* what) {
    using D = gf::layer<with_capacity(C), double>;
    auto z = random_logits(24, 6, 4);
    for (std::size_t t = 0; t < 24; ++t) z[6 * t + 1] += 4;
    routed<D> r({});
    r.x.assign(z.begin(), z.end());
    r.y = r.x;
    r.in.x = {r.x.data(), {24, 6}};
    const std::vector<std::int32_t> starts = {0, 7, 20};
    r.in.sequence_starts = {starts.data(), {3}};
    r.tape = gf::tape<D>(r.ctx, 24);
    r.forward();
    gf::routing_window<D> window(r.ctx);
    window.add(r.tape, r.in, r.call);
    const auto m = window.metrics();
    BOOST_TEST(window.dropped == r.ctx.report().dropped, what);
    BOOST_TEST(window.dropped > 0, what);
    BOOST_TEST(near(m.drop_rate, static_cast<double>(window.dropped) / 48), what);
    BOOST_TEST(near(m.usage, static_cast<double>(48 - window.dropped) / static_cast<double>(window.places)), what);
    BOOST_TEST(m.usage <= 1, what);
}

BOOST_AUTO_TEST_CASE(dropped_pairs_and_filled_places) {
    using gf::capacity_rule;
    check_drops<gf::capacity_config{.rule = capacity_rule::megatron, .factor = 1}>("batch");
    check_drops<gf::capacity_config{
        .rule = capacity_rule::megatron, .factor = 1, .shared_by = gf::capacity_group::sequence}>("sequence");
    check_drops<gf::capacity_config{
        .rule = capacity_rule::megatron, .factor = 1, .shared_by = gf::capacity_group::fixed, .group_size = 10}>(
        "fixed");
    using D = gf::layer<with_capacity({.rule = capacity_rule::megatron, .factor = 1}), double>;
    gf::batch<D> none;
    // ceil(24 · 2 / 6) = 8 places of each of 6 experts.
    BOOST_TEST(gf::detail::capacity_places<D>(none, {}, 24, 20) == 48);
}

BOOST_AUTO_TEST_CASE(saturation_and_domains) {
    const std::vector<std::int32_t> early = {0, 1, 2, 3, 4, -1}, late = {1, 5, 3, 2, 0, 1};
    const gf::view<const std::int32_t, gf::dyn, 2> e{early.data(), {3, 2}}, l{late.data(), {3, 2}};
    BOOST_TEST(gf::saturation(e, l) == 3.0 / 5);
    BOOST_TEST(gf::saturation(e, e) == 1);
    const std::vector<std::int32_t> labels = {1, -1, 1};
    std::vector<gf::index_t> counts(12, 0);
    gf::add_domain_counts(e, {labels.data(), {3}}, {counts.data(), {2, 6}});
    BOOST_TEST(counts == (std::vector<gf::index_t>{0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 0}),
               boost::test_tools::per_element());
    const std::vector<std::int32_t> wrong = {1, 2, 0};
    BOOST_CHECK_THROW(gf::add_domain_counts(e, {wrong.data(), {3}}, {counts.data(), {2, 6}}), gf::argument_error);
    BOOST_CHECK_THROW(gf::add_expert_counts(e, {counts.data(), {4}}), gf::argument_error);
    BOOST_TEST(counts[0] == 0);
    const std::vector<std::uint8_t> mask(2, 1);
    BOOST_CHECK_THROW(gf::add_expert_counts(e, {counts.data(), {6}}, {mask.data(), {2}}), gf::argument_error);
}

BOOST_AUTO_TEST_CASE(table_and_json) {
    routed<L> a(random_logits(21, 6, 5));
    gf::routing_window<L> window(a.ctx);
    window.add(a.tape);
    const std::vector<gf::routing_metrics> layers = {window.metrics(), {}};
    const std::string table = gf::routing_table(layers);
    std::size_t width = table.find('\n'), lines = 0;
    for (std::size_t at = 0; at < table.size(); at += width + 1, ++lines) BOOST_TEST(table[at + width] == '\n');
    BOOST_TEST(lines == 3u);
    BOOST_TEST(table.find("MaxVio") != std::string::npos);
    const auto json = nlohmann::json::parse(gf::routing_json(layers, 2));
    BOOST_TEST(json["layers"].size() == 2u);
    BOOST_TEST(json["layers"][0]["tokens"] == 21);
    BOOST_TEST(json["layers"][0]["max_violation"].get<double>() == layers[0].load.max_violation);
    BOOST_TEST(json["layers"][0]["logit_rms"].get<double>() == layers[0].logit_rms);
    BOOST_TEST(json["layers"][1]["steps"] == 0);
    // Averaged over layers, of which one is empty.
    BOOST_TEST(json["mean_max_violation"].get<double>() == layers[0].load.max_violation / 2);
    BOOST_TEST(json["mean_batch_violation"].get<double>() == layers[0].batch_violation / 2);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
