// The blocking model: what it promises to keep in which cache, for every form of the kernels and every length of a sum.
#include <cstddef>
#include <tuple>

#include <boost/test/unit_test.hpp>

#include <gatefold/cpu/experts/blocking.hpp>

namespace {

namespace gf = gatefold;
namespace k = gatefold::detail::on_cpu;
using gf::index_t;

using forms = std::tuple<k::chain<float>, k::chain<double>, k::chain<float, gf::f16>, k::portable_form, k::dot_form>;

/// Bytes of `steps` steps of the two streams of a panel.
template <class Form>
constexpr index_t panel_bytes(index_t steps) {
    return 2 * steps * k::sweep_blocks<Form>::step_bytes;
}

/// Bytes of a step of the rows of the highest tile.
template <class Form>
constexpr index_t row_bytes() {
    return index_t{Form::max_rows} * (Form::block > 1 ? 2 : 1) * static_cast<index_t>(sizeof(typename Form::row_type));
}

// It is known at compile time.
static_assert(k::sweep_blocks<k::chain<float>>::packed_depth(1) >= 1);
static_assert(k::unit_blocks::piece == 128 && k::unit_blocks::bytes < std::size_t{1} << 20);

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(blocking)

BOOST_AUTO_TEST_CASE_TEMPLATE(sums_of_a_block_stay_in_the_first_level_cache, Form, forms) {
    using blocks = k::sweep_blocks<Form>;
    BOOST_TEST(blocks::tiles >= 1);
    BOOST_TEST(blocks::rows == blocks::tiles * Form::max_rows);
    BOOST_TEST(static_cast<index_t>(blocks::sum_bytes) <= k::caches.first);
    // Each tile fetches whole bytes of the next panel per step.
    BOOST_TEST(blocks::step_bytes / blocks::tiles >= 2);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(pieces_of_a_panel_stay_in_the_second_level_cache, Form, forms) {
    using blocks = k::sweep_blocks<Form>;
    for (index_t steps = Form::block; steps < 20000; steps += steps < 100 ? Form::block : 37 * Form::block) {
        const index_t depth = blocks::packed_depth(steps), pieces = gf::ceil_div(steps, depth);
        BOOST_TEST(depth % Form::block == 0);
        BOOST_TEST(panel_bytes<Form>(depth) <= k::caches.second / 2 + panel_bytes<Form>(Form::block));
        // Together with the rows of a tile; no more pieces than that takes, and of nearly equal length.
        const index_t both = panel_bytes<Form>(1) + row_bytes<Form>();
        BOOST_TEST(depth * both <= k::caches.second / 2 + Form::block * both);
        BOOST_TEST(pieces <= gf::ceil_div(steps, k::caches.second / 2 / both));
        BOOST_TEST(pieces * depth - steps < pieces * Form::block);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(what_is_packed_from_hub_layout_stays_in_half_the_first_level_cache, Form, forms) {
    using blocks = k::sweep_blocks<Form>;
    BOOST_TEST(static_cast<index_t>(blocks::hub_bytes) <= k::caches.first / 2);
    // A kernel call takes up to four streams of it, in whole blocks of steps.
    BOOST_TEST(blocks::hub_steps % (4 * Form::block) == 0);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
