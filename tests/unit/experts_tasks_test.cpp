// How parts share the panels of a call: every panel once, whoever takes pieces when.
#include <cstddef>
#include <cstdint>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/cpu/experts/tasks.hpp>

namespace {

namespace gf = gatefold;
namespace k = gatefold::detail::on_cpu;
using gf::index_t;

struct draws {
    std::uint32_t state = 1;
    int below(int n) {
        state = state * 1664525u + 1013904223u;
        return static_cast<int>((state >> 16) % static_cast<std::uint32_t>(n));
    }
};

constexpr index_t ridge = 7, tallest = 14;

/// Lets the parts take turns as `draw` has it, and counts how often every panel was taken.
void check_walks(const std::vector<std::int32_t>& offsets, index_t panels, int parts, draws& draw) {
    const int experts = static_cast<int>(offsets.size()) - 1;
    const k::grouping groups{experts, offsets.data(), offsets.back()};
    std::vector<k::task_position> positions(static_cast<std::size_t>(parts));
    k::task_list tasks(groups, panels, ridge, tallest, parts, positions.data());
    tasks.cut();
    std::vector<std::vector<int>> taken(static_cast<std::size_t>(experts),
                                        std::vector<int>(static_cast<std::size_t>(panels)));
    std::vector<k::task_walk> walks;
    for (int part = 0; part < parts; ++part) walks.emplace_back(tasks, part);
    bool in_pairs = true, goes_on = true;
    for (int idle = 0; idle < 100;) {
        auto& walk = walks[static_cast<std::size_t>(draw.below(parts))];
        if (!walk.there()) {
            ++idle;
            continue;
        }
        const int e = walk.expert();
        const index_t p = walk.panel();
        const k::panel_run run = walk.next();
        goes_on = goes_on && run.expert == e && run.p0 == p && run.p0 < run.p1 && run.p1 <= panels;
        in_pairs = in_pairs && (groups.count(e) > tallest || run.p0 % 2 == 0);
        for (index_t q = run.p0; q < run.p1; ++q) ++taken[static_cast<std::size_t>(e)][static_cast<std::size_t>(q)];
        idle = 0;
    }
    BOOST_TEST((goes_on && in_pairs));
    bool once = true;
    for (int e = 0; e < experts; ++e)
        for (const int count : taken[static_cast<std::size_t>(e)])
            once = once && count == (groups.count(e) > 0 ? 1 : 0);
    BOOST_TEST(once);
    for (const auto& walk : walks) BOOST_TEST(!walk.there());
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(experts_tasks)

BOOST_AUTO_TEST_CASE(every_panel_is_taken_once) {
    draws draw;
    for (const int parts : {1, 2, 3, 8})
        for (const index_t panels : {1, 2, 7, 32})
            for (int mixture = 0; mixture < 40; ++mixture) {
                std::vector<std::int32_t> offsets{0};
                for (int e = 0; e <= mixture; ++e)
                    offsets.push_back(offsets.back() + (draw.below(3) == 0 ? 0 : draw.below(mixture % 2 ? 9 : 60)));
                check_walks(offsets, panels, parts, draw);
            }
}

BOOST_AUTO_TEST_CASE(nothing_to_do) {
    draws draw;
    check_walks({0, 0, 0}, 5, 2, draw);
    check_walks({0, 0, 0}, 5, 1, draw);
}

BOOST_AUTO_TEST_CASE(a_part_alone_takes_experts_whole) {
    const std::vector<std::int32_t> offsets{0, 3, 3, 40};
    k::task_position position;
    k::task_list tasks({3, offsets.data(), 40}, 9, ridge, tallest, 1, &position);
    tasks.cut();
    k::task_walk walk(tasks, 0);
    const k::panel_run first = walk.next();
    BOOST_TEST((first.expert == 0 && first.p0 == 0 && first.p1 == 9 && walk.expert() == 2 && walk.panel() == 0));
    const k::panel_run second = walk.next();
    BOOST_TEST((second.expert == 2 && second.p0 == 0 && second.p1 == 9 && !walk.there()));
}

BOOST_AUTO_TEST_CASE(who_is_done_takes_what_others_have_left) {
    const std::vector<std::int32_t> offsets{0, 4, 8};
    k::task_position positions[2];
    k::task_list tasks({2, offsets.data(), 8}, 32, ridge, tallest, 2, positions);
    tasks.cut();
    k::task_walk slow(tasks, 1);
    index_t panels = 0;
    bool other = false;
    for (k::task_walk fast(tasks, 0); fast.there();) {
        const k::panel_run run = fast.next();
        panels += run.p1 - run.p0;
        other = other || run.expert == 1;
    }
    BOOST_TEST((other && panels > 32 && panels < 64));
    while (slow.there()) {
        const k::panel_run run = slow.next();
        panels += run.p1 - run.p0;
    }
    BOOST_TEST(panels == 64);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
