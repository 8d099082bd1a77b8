// The order in which the expert stage takes panels where experts of many and of few rows take turns, and what is
// fetched along it.
#include <cstddef>
#include <cstdint>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/cpu/experts/blocking.hpp>
#include <gatefold/cpu/experts/fetch.hpp>

namespace {

namespace gf = gatefold;
namespace k = gatefold::detail::on_cpu;
using gf::index_t;

/// Experts with given numbers of rows.
struct counted {
    std::vector<std::int32_t> offsets{0};
    std::vector<k::ordered_expert> order;

    explicit counted(const std::vector<int>& counts) {
        for (const int n : counts) offsets.push_back(offsets.back() + n);
        order.resize(counts.size());
    }
    k::grouping groups() const { return {static_cast<int>(offsets.size()) - 1, offsets.data(), offsets.back()}; }
};

/// Mixtures of every kind: no expert, one, only one class, runs, turns, and some that look random.
std::vector<counted> mixtures() {
    std::vector<counted> all;
    const std::vector<std::vector<int>> some = {{},
                                                {0, 0},
                                                {5},
                                                {9, 0, 1},
                                                {1, 1, 2},
                                                {40, 30, 20},
                                                {40, 1, 40, 1, 40, 1},
                                                {1, 40, 1, 1, 1, 40, 40, 1},
                                                {100, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}};
    for (const auto& counts : some) all.emplace_back(counts);
    std::uint32_t state = 1;
    for (int mixture = 0; mixture < 40; ++mixture) {
        std::vector<int> counts;
        for (int e = 0; e < 3 + mixture; ++e) {
            state = state * 1664525u + 1013904223u;
            const int draw = static_cast<int>(state >> 24);
            counts.push_back(draw < 60 ? 0 : draw < 160 ? draw % 7 : draw % 70);
        }
        all.emplace_back(counts);
    }
    return all;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(experts_order)

BOOST_AUTO_TEST_CASE(merging_keeps_the_order_within_a_class) {
    for (counted& c : mixtures()) {
        const k::grouping groups = c.groups();
        const k::merged_experts merged = k::merge_experts(groups, 7, c.order.data());
        index_t active = 0;
        for (int e = 0; e < groups.experts; ++e) active += groups.count(e) > 0;
        BOOST_REQUIRE(merged.active == active);
        int last[2] = {-1, -1};
        for (index_t i = 0; i < active; ++i) {
            const k::ordered_expert& at = merged.order[i];
            const bool many = groups.count(at.expert) >= 7;
            BOOST_TEST(groups.count(at.expert) > 0);
            BOOST_TEST(at.expert > last[many]);
            BOOST_TEST(at.lag <= merged.most_lag);
            last[many] = at.expert;
        }
    }
}

BOOST_AUTO_TEST_CASE(classes_are_merged_in_proportion) {
    // Two experts of many rows among eight of few: one before each four.
    counted c({1, 1, 1, 1, 1, 1, 1, 1, 30, 30});
    const k::merged_experts merged = k::merge_experts(c.groups(), 7, c.order.data());
    std::vector<int> order;
    for (index_t i = 0; i < merged.active; ++i) order.push_back(merged.order[i].expert);
    BOOST_TEST(order == (std::vector<int>{8, 0, 1, 2, 3, 9, 4, 5, 6, 7}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(parts_of_the_first_projection_take_every_panel_once) {
    for (counted& c : mixtures())
        for (const index_t together : {1, 3, 16})
            for (const index_t panels : {1, 2, 9})
                for (const int parts : {1, 2, 3, 7}) {
                    const k::grouping groups = c.groups();
                    const k::merged_experts merged = k::merge_experts(groups, 7, c.order.data());
                    const auto cost = [&](int e) { return groups.count(e) > 12 ? groups.count(e) : index_t{12}; };
                    index_t total = 0, most = 0;
                    for (index_t i = 0; i < merged.active; ++i) {
                        const index_t each = cost(merged.order[i].expert);
                        total += each * panels;
                        most = each > most ? each : most;
                    }
                    std::vector<int> taken(static_cast<std::size_t>(groups.experts * panels));
                    for (int part = 0; part < parts; ++part) {
                        const auto task = [&](int p) {
                            return k::task_at(merged, together, panels, total * p / parts, cost);
                        };
                        index_t mine = 0;
                        for (auto walk = k::panel_walk::of_first(merged, together, panels, task(part), task(part + 1));
                             !walk.done(); walk.next()) {
                            ++taken[static_cast<std::size_t>(walk.expert() * panels + walk.panel())];
                            mine += cost(walk.expert());
                        }
                        BOOST_TEST(mine <= total / parts + 1 + most);
                    }
                    bool once = true;
                    for (int e = 0; e < groups.experts; ++e)
                        for (index_t p = 0; p < panels; ++p)
                            once &= taken[static_cast<std::size_t>(e * panels + p)] == (groups.count(e) > 0);
                    BOOST_TEST(once);
                }
}

BOOST_AUTO_TEST_CASE(every_panel_of_the_second_projection_sees_the_experts_ascending) {
    for (counted& c : mixtures())
        for (const index_t p0 : {0, 2})
            for (const index_t panels : {1, 3, 40}) {
                const k::grouping groups = c.groups();
                const k::merged_experts merged = k::merge_experts(groups, 7, c.order.data());
                std::vector<int> last(static_cast<std::size_t>(panels), -1), count(static_cast<std::size_t>(panels));
                bool ascending = true;
                for (auto walk = k::panel_walk::of_second(merged, p0, p0 + panels); !walk.done(); walk.next()) {
                    BOOST_REQUIRE(walk.panel() >= p0);
                    BOOST_REQUIRE(walk.panel() < p0 + panels);
                    const auto p = static_cast<std::size_t>(walk.panel() - p0);
                    ascending &= walk.expert() > last[p];
                    last[p] = walk.expert();
                    ++count[p];
                }
                BOOST_TEST(ascending);
                for (const int n : count) BOOST_TEST(n == merged.active);
            }
}

BOOST_AUTO_TEST_CASE(merging_is_for_mixtures_alone) {
    const auto worth = [](const std::vector<int>& counts) { return k::worth_merging(counted(counts).groups(), 7); };
    BOOST_TEST(!worth({}));
    BOOST_TEST(!worth({100}));
    BOOST_TEST(!worth({1, 2, 1, 3}));
    BOOST_TEST(!worth({50, 60, 70}));
    BOOST_TEST(!worth({8, 7, 9, 6, 8, 10}));
    BOOST_TEST(worth({40, 1, 1, 1, 1, 1}));
    BOOST_TEST(!worth({30, 1, 1, 1, 1, 1}));  // memory is the limit
}

BOOST_AUTO_TEST_CASE(fetches_stay_a_little_ahead) {
    counted c({1, 20, 1, 1, 30, 1, 2, 9});
    const k::grouping groups = c.groups();
    const k::merged_experts merged = k::merge_experts(groups, 7, c.order.data());
    constexpr index_t panels = 5, steps = 32, step_bytes = 64, used = steps * step_bytes, stream = used + 64;
    std::vector<char> weights(static_cast<std::size_t>(groups.experts * panels * 2 * stream));
    auto walk = k::panel_walk::of_first(merged, 16, panels, 0, merged.active * panels);
    k::panel_fetch fetch{walk, weights.data(), panels * 2 * stream, stream, used, 7, 4 * used};
    std::vector<char> fetched(weights.size());
    for (bool first = true; !walk.done(); walk.next(), first = false) {
        fetch.consume(used);
        // All of the panel was fetched before.
        const index_t begin = walk.expert() * panels * 2 * stream + walk.panel() * 2 * stream;
        for (index_t i = 0; i < used && !first; i += 64)
            BOOST_REQUIRE(fetched[static_cast<std::size_t>(begin + i)] != 0);
        const k::row_tiles tiles(groups.count(walk.expert()), 14);
        for (index_t t = 0; t < tiles.tiles; ++t) {
            const int height = static_cast<int>(tiles.begin(t + 1) - tiles.begin(t));
            const k::lookahead ahead = fetch.next(steps, step_bytes, 1024, height, tiles.tiles - t, weights.data());
            BOOST_TEST(ahead.distance == 1024);
            BOOST_TEST(ahead.advance <= step_bytes);
            BOOST_TEST(2 * fetch.ahead <= 4 * used + 2 * used);
            if (ahead.advance == 0) continue;
            for (index_t s = 0; s < steps; ++s)
                fetched[static_cast<std::size_t>((ahead.next - weights.data() + s * ahead.advance) / 64 * 64)] = 1;
            BOOST_TEST(ahead.half == stream);
        }
    }
    BOOST_TEST(fetch.walk.done());
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
