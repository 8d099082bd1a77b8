// The plan built by Thrust is the plan built by the library, on every device system of this build.
#include <cstdint>
#include <vector>

#include <boost/test/unit_test.hpp>
#include <thrust/reduce.h>

#include <gatefold/gatefold.hpp>
#include <gatefold/interop/thrust.hpp>

namespace gf = gatefold;

namespace {

template <int Experts, int TopK>
void compare(gf::index_t tokens, int kind) {
    using L = gf::layer<gf::config{.hidden = 1, .ffn = 1, .experts = Experts, .top_k = TopK}, float>;
    const auto pairs = static_cast<std::size_t>(tokens * TopK);
    std::vector<std::int32_t> ids(pairs), keys(pairs);
    std::uint32_t state = 7;
    for (std::size_t p = 0; p < pairs; ++p) {
        state = state * 1664525u + 1013904223u;
        const auto draw = static_cast<std::int32_t>(state >> 8);
        ids[p] = kind == 0 ? draw % Experts : kind == 1 ? draw % (Experts + 1) - 1 : kind == 2 ? Experts - 1 : -1;
    }
    gf::context<gf::cpu> ctx(2);
    gf::plan<L> mine(ctx, tokens), theirs(ctx, tokens);
    const auto a = mine.view(tokens), b = theirs.view(tokens);
    gf::make_plan<L>(ctx, gf::view<const std::int32_t, gf::dyn, TopK>{ids.data(), {tokens, TopK}}, a);
    const auto n = static_cast<gf::index_t>(pairs);
    gf::interop::make_plan(thrust::device, gf::view<const std::int32_t, gf::dyn>{ids.data(), {n}}, Experts, b,
                           gf::view<std::int32_t, gf::dyn>{keys.data(), {n}});
    for (int e = 0; e <= Experts; ++e) BOOST_TEST(a.offsets[e] == b.offsets[e]);
    for (gf::index_t r = 0; r < a.offsets[Experts]; ++r) BOOST_TEST(a.rows[r] == b.rows[r]);
    for (gf::index_t p = 0; p < n; ++p) BOOST_TEST(a.place[p] == b.place[p]);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(plan)

BOOST_AUTO_TEST_CASE(equals_the_library_s_plan) {
    for (int kind = 0; kind < 4; ++kind)
        for (const gf::index_t tokens : {0, 1, 2, 97, 3001}) {
            compare<2, 1>(tokens, kind);
            compare<8, 2>(tokens, kind);
            compare<513, 8>(tokens, kind);
        }
}

BOOST_AUTO_TEST_CASE(views_are_ranges_for_thrust) {
    std::vector<float> x{1, 2, 3.5f};
    const gf::view<float, gf::dyn> v{x.data(), {3}};
    BOOST_TEST(thrust::reduce(thrust::device, gf::interop::begin(v), gf::interop::end(v)) == 6.5f);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
