// The host context: threads, executor, workspace that grows or is fixed, report, failing allocators.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/core/context.hpp>
#include <gatefold/core/workspace.hpp>
#include <tests/unit/memory.hpp>

namespace {

namespace gf = gatefold;
using tests::counting_memory;

gf::context<gf::cpu> counted(counting_memory& memory) {
    gf::context_options options;
    options.memory = memory.source();
    return gf::context<gf::cpu>(options);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(context)

BOOST_AUTO_TEST_CASE(threads) {
    BOOST_TEST(gf::context<gf::cpu>().threads() >= 1);
    BOOST_TEST(gf::context<gf::cpu>(3).threads() == 3);
    BOOST_CHECK_THROW(gf::context<gf::cpu>(-1), gf::argument_error);
    BOOST_TEST((gf::context<gf::cpu>(1).sums() == gf::order::fastest));
}

BOOST_AUTO_TEST_CASE(every_part_runs_once) {
    for (int threads : {1, 2, 4})
        for (int parts : {0, 1, 2, 7}) {
            gf::context<gf::cpu> ctx(threads);
            std::vector<std::atomic<int>> runs(8);
            ctx.parallel(parts, [&](int p) { ++runs[static_cast<std::size_t>(p)]; });
            for (int p = 0; p < 8; ++p) BOOST_TEST(runs[static_cast<std::size_t>(p)] == (p < parts ? 1 : 0));
        }
}

BOOST_AUTO_TEST_CASE(an_executor_of_the_program) {
    struct record {
        int calls = 0;
        std::vector<int> order;
    } seen;
    gf::context_options options;
    options.threads = 4;
    options.runs = {&seen, [](void* self, int parts, void (*part)(void*, int), void* argument) {
                        auto& r = *static_cast<record*>(self);
                        ++r.calls;
                        for (int p = parts; p-- > 0;) {
                            r.order.push_back(p);
                            part(argument, p);
                        }
                    }};
    gf::context<gf::cpu> ctx(options);
    int sum = 0;
    ctx.parallel(3, [&](int p) { sum = 10 * sum + p; });
    BOOST_TEST((seen.calls == 1 && seen.order == std::vector<int>{2, 1, 0} && sum == 210));
    ctx.parallel(1, [&](int) { ++sum; });  // one part needs no executor
    BOOST_TEST((seen.calls == 1 && sum == 211));
    const auto constant = [&sum](int p) { sum += p; };  // a body that is const
    ctx.parallel(2, constant);
    BOOST_TEST(sum == 212);
}

BOOST_AUTO_TEST_CASE(phases_follow_one_another) {
    for (int threads : {1, 2, 4})
        for (int parts : {0, 1, 2, 3, 7}) {
            gf::context<gf::cpu> ctx(threads);
            std::atomic<int> done{0}, third{0}, early{0};
            const auto begins = [&](int phase) { early += done < phase * parts ? 1 : 0; };
            for (int repeat = 0; repeat < 20; ++repeat) {
                done = 0;
                const auto slow = [&](int p) {
                    // Whoever is done first would begin the next phase long before the others are.
                    for (volatile int i = 0; i < 2000 * p;) i = i + 1;
                    ++done;
                };
                const auto middle = [&](int) { begins(1), ++done; };
                const auto last = [&](int) { begins(2), ++done, ++third; };
                ctx.parallel(
                    std::array{gf::phase::of(parts, slow), gf::phase::of(parts, middle), gf::phase::of(parts, last)});
            }
            BOOST_TEST((done == 3 * parts && third == 20 * parts && early == 0));
        }
}

BOOST_AUTO_TEST_CASE(phases_of_one_part_stay_in_order) {
    for (int threads : {1, 2, 4})
        for (int repeat = 0; repeat < 20; ++repeat) {
            gf::context<gf::cpu> ctx(threads);
            int steps = 0;  // not atomic: of the parts that write it none runs beside another
            std::atomic<int> wrong{0};
            const auto slow = [&](int) {
                for (volatile int i = 0; i < 2000;) i = i + 1;
                ++steps;
            };
            const auto two = [&](int) { wrong += steps != 2; };
            const auto again = [&](int) { ++steps; };
            const auto three = [&](int) { wrong += steps != 3; };
            const auto never = [&](int) { ++wrong; };
            ctx.parallel(std::array{gf::phase::of(1, slow), gf::phase::of(0, never), gf::phase::of(1, slow),
                                    gf::phase::of(0, never), gf::phase::of(3, two), gf::phase::of(1, again),
                                    gf::phase::of(0, never), gf::phase::of(2, three)});
            BOOST_TEST((steps == 3 && wrong == 0));
        }
}

BOOST_AUTO_TEST_CASE(an_executor_runs_phase_by_phase) {
    gf::context_options options;
    options.threads = 2;
    int calls = 0;
    options.runs = {&calls, [](void* self, int parts, void (*part)(void*, int), void* argument) {
                        ++*static_cast<int*>(self);
                        for (int p = parts; p-- > 0;) part(argument, p);
                    }};
    gf::context<gf::cpu> ctx(options);
    std::vector<int> seen;
    const auto first = [&](int p) { seen.push_back(p); };
    const auto second = [&seen](int p) { seen.push_back(10 + p); };
    ctx.parallel(std::array{gf::phase::of(3, first), gf::phase::of(2, second)});
    BOOST_TEST((calls == 2 && seen == std::vector<int>{2, 1, 0, 11, 10}));
    ctx.parallel(std::array{gf::phase::of(1, first), gf::phase::of(1, second)});  // one part needs no executor
    BOOST_TEST((calls == 2 && seen == std::vector<int>{2, 1, 0, 11, 10, 0, 10}));
    ctx.parallel(std::array{gf::phase::of(1, first), gf::phase::of(0, first), gf::phase::of(2, second)});
    BOOST_TEST((calls == 3 && seen == std::vector<int>{2, 1, 0, 11, 10, 0, 10, 0, 11, 10}));
}

BOOST_AUTO_TEST_CASE(workspace_only_grows) {
    counting_memory memory;
    {
        auto ctx = counted(memory);
        BOOST_TEST((ctx.workspace_bytes() == 0u && memory.given == 0));
        std::byte* const first = ctx.workspace(1000);
        BOOST_TEST((first && reinterpret_cast<std::uintptr_t>(first) % 64 == 0u && ctx.workspace_bytes() == 1000u));
        BOOST_TEST((ctx.workspace(10) == first && ctx.workspace(1000) == first && memory.given == 1));
        ctx.reserve_bytes(5000);
        BOOST_TEST((memory.given == 2 && memory.returned == 1 && ctx.workspace_bytes() == 5000u));
        ctx.workspace(4000);
        BOOST_TEST(memory.given == 2);
    }
    BOOST_TEST((memory.returned == 2 && memory.bytes == 0u));
}

BOOST_AUTO_TEST_CASE(a_fixed_workspace_refuses_to_grow) {
    counting_memory memory;
    auto ctx = counted(memory);
    ctx.reserve_bytes(100);
    ctx.fix_workspace();
    std::byte* const block = ctx.workspace(100);
    BOOST_CHECK_THROW(ctx.workspace(101), gf::argument_error);
    BOOST_TEST((ctx.workspace(100) == block && memory.given == 1));
    ctx.fix_workspace(false);
    ctx.workspace(101);
    BOOST_TEST(memory.given == 2);
}

BOOST_AUTO_TEST_CASE(survives_a_failing_allocator) {
    counting_memory memory;
    auto ctx = counted(memory);
    ctx.reserve_bytes(100);
    memory.fails_at = 1;
    BOOST_CHECK_THROW(ctx.workspace(1000), std::bad_alloc);
    BOOST_CHECK_THROW(ctx.workspace(1000), std::bad_alloc);
    memory.fails_at = -1;
    BOOST_TEST(ctx.workspace(1000) != nullptr);
    BOOST_TEST(memory.given - memory.returned == 1);
}

BOOST_AUTO_TEST_CASE(report_is_counted_and_cleared) {
    gf::context<gf::cpu> ctx(1);
    BOOST_TEST((ctx.report() == gf::routing_report{}));
    ctx.report().nan_logits += 3;
    ctx.report().tokens += 5;
    BOOST_TEST((std::as_const(ctx).report().nan_logits == 3 && ctx.report().tokens == 5));
    ctx.clear_report();
    BOOST_TEST((ctx.report() == gf::routing_report{}));
}

BOOST_AUTO_TEST_CASE(carver_counts_and_hands_out_the_same) {
    const auto layout = [](gf::carver c) {
        c.take<char>(3);
        c.take<double>(9);
        c.take<int>(0);
        c.take<int>(1);
        return c.used();
    };
    static_assert(gf::carver(nullptr).used() == 0);
    alignas(64) std::byte memory[512];
    BOOST_TEST(
        (layout(gf::carver(nullptr)) == layout(gf::carver(memory)) && layout(gf::carver(memory)) == 64u + 128 + 64));
    gf::carver c(memory);
    auto* const bytes = reinterpret_cast<std::byte*>(c.take<char>(3));
    auto* const doubles = reinterpret_cast<std::byte*>(c.take<double>(1));
    BOOST_TEST((bytes == memory && doubles == memory + 64));
    BOOST_TEST(gf::carver(nullptr).take<int>(5) == nullptr);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
