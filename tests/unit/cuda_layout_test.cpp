// ctest: heavy
// The layouts and the choices behind the CUDA kernels, checked on the host.
#include <set>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/cuda/experts/layout.hpp>

namespace on_cuda = gatefold::detail::on_cuda;

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(cuda_layout)

BOOST_AUTO_TEST_CASE(outputs_are_a_permutation_and_a_quad_holds_neighbours) {
    for (int groups = 1; groups < 24; ++groups) {
        std::set<int> seen;
        for (int g = 0; g < groups; ++g)
            for (int n = 0; n < 8; ++n) seen.insert(on_cuda::output_at(g, n, groups));
        BOOST_TEST(seen.size() == static_cast<std::size_t>(groups * 8));
        BOOST_TEST(*seen.begin() == 0);
        BOOST_TEST(*seen.rbegin() == groups * 8 - 1);
        // A thread's outputs of four groups side by side are eight in a row.
        for (int g = 0; g + 4 <= groups; g += 4)
            for (int q = 0; q < 4; ++q)
                for (int t = 0; t < 4; ++t)
                    BOOST_TEST(on_cuda::output_at(g + t, 2 * q, groups) == g * 8 + 8 * q + 2 * t);
    }
}

BOOST_AUTO_TEST_CASE(packed_elements_are_a_bijection) {
    for (const int strips : {1, 7, 8, 9, 19})
        for (const int padded : {16, 48}) {
            std::vector<int> count(static_cast<std::size_t>(strips * 16 * padded));
            for (int row = 0; row < strips * 16; ++row)
                for (int k = 0; k < padded; ++k)
                    ++count[static_cast<std::size_t>(on_cuda::packed_at(row, k, strips, padded))];
            for (const int n : count) BOOST_TEST(n == 1);
        }
}

BOOST_AUTO_TEST_CASE(every_weight_row_is_packed_once) {
    for (const bool gated : {true, false})
        for (const int outputs : {1, 8, 21, 64, 100}) {
            const int strips = gated ? (outputs + 7) / 8 : (outputs + 15) / 16, groups = gated ? strips : 2 * strips;
            std::multiset<int> rows;
            for (int row = 0; row < strips * 16; ++row) {
                const int r = on_cuda::weight_row_of(row, gated, outputs, groups);
                if (r >= 0) rows.insert(r);
                // Gate and up of an output share the place in the halves of a strip.
                if (gated && row % 16 < 8 && r >= 0)
                    BOOST_TEST(on_cuda::weight_row_of(row + 8, gated, outputs, groups) == r + outputs);
            }
            BOOST_TEST(rows.size() == static_cast<std::size_t>((gated ? 2 : 1) * outputs));
            for (int r = 0; r < (gated ? 2 : 1) * outputs; ++r) BOOST_TEST(rows.count(r) == 1u);
        }
}

BOOST_AUTO_TEST_CASE(tile_lists_fit_their_bound) {
    for (const int experts : {1, 3, 60})
        for (const int rows : {8, 64})
            for (int pairs = 0; pairs < 300; pairs += 7) {
                // The worst case: every expert but one holds one row more than whole tiles.
                long tiles = 0, left = pairs;
                for (int e = 0; e < experts && left > 0; ++e) {
                    const long n = e + 1 < experts ? (left < rows + 1 ? left : rows + 1) : left;
                    tiles += (n + rows - 1) / rows;
                    left -= n;
                }
                BOOST_TEST(tiles <= on_cuda::most_tiles(pairs, experts, rows));
            }
}

BOOST_AUTO_TEST_CASE(classes_rise_with_the_load) {
    for (int tiles = 0; tiles < 5000; ++tiles) {
        BOOST_TEST(on_cuda::weight_class(tiles) <= on_cuda::weight_class(tiles + 1));
        BOOST_TEST(on_cuda::weight_class(tiles) < 32);
    }
    static_assert(on_cuda::bits_for(2) == 1 && on_cuda::bits_for(3) == 2 && on_cuda::bits_for(257) == 9);
}

BOOST_AUTO_TEST_CASE(the_number_of_tokens_chooses_the_tile) {
    using on_cuda::regime;
    constexpr int enough = 160 * 1024, little = 99 * 1024;
    static_assert(on_cuda::regime_of(16, 8, enough) == regime::few_rows);
    static_assert(on_cuda::regime_of(17, 8, enough) == regime::tiles_of_64);
    static_assert(on_cuda::regime_of(48 * 8 - 1, 8, enough) == regime::tiles_of_64);
    static_assert(on_cuda::regime_of(48 * 8, 8, enough) == regime::tiles_of_128);
    static_assert(on_cuda::regime_of(128 * 8, 8, little) == regime::few_rows);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
