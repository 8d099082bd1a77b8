// Views: layout, strides, slices, what converts to what, and that memory spaces do not mix.
#include <cstdint>
#include <type_traits>

#include <boost/test/unit_test.hpp>

#include <gatefold/core/view.hpp>

namespace gf = gatefold;
using gf::dyn;
using gf::index_t;

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(view)

BOOST_AUTO_TEST_CASE(row_major_with_and_without_gaps) {
    int numbers[60];
    for (int i = 0; i < 60; ++i) numbers[i] = i;
    const gf::view<int, 2, dyn, 5> v(numbers, {2, 3, 5});
    BOOST_TEST((v.rank == 3 && v.size() == 30 && v.rows() == 6 && v.row_stride() == 5 && v.is_contiguous()));
    BOOST_TEST((v.extent(0) == 2 && v.extent(1) == 3 && v.extent(2) == 5));
    BOOST_TEST((v.static_extent(0) == 2 && v.static_extent(1) == dyn));
    BOOST_TEST((v(0, 0, 0) == 0 && v(1, 2, 4) == 29 && v(1, 0, 3) == 18));
    BOOST_TEST((v.row(4) == numbers + 20));
    const gf::view<int, 2, 3, 5> wide(numbers, {2, 3, 5}, 10);
    BOOST_TEST((!wide.is_contiguous() && wide(1, 2, 4) == 54 && wide.row(5) == numbers + 50));
    const gf::view<int, dyn> line(numbers + 7, {4});
    BOOST_TEST((line[2] == 9 && line(3) == 10 && line.rows() == 1 && line.row(0) == numbers + 7));
    int sum = 0;
    for (const int n : line) sum += n;
    BOOST_TEST(sum == 7 + 8 + 9 + 10);
}

BOOST_AUTO_TEST_CASE(slices_share_memory) {
    int numbers[60] = {};
    const gf::view<int, 4, 3> m(numbers, {4, 3}, 7);
    const auto part = m.slice(1, 2);
    static_assert(std::is_same_v<decltype(part), const gf::view<int, dyn, 3>>);
    BOOST_TEST((part.extent(0) == 2 && part.extent(1) == 3 && part.row_stride() == 7 && &part(1, 2) == &m(2, 2)));
    const gf::view<int, dyn, 2, 3> deep(numbers, {3, 2, 3}, 10);
    BOOST_TEST((&deep.slice(2, 1)(0, 1, 2) == &deep(2, 1, 2)));
    const gf::view<int, dyn> line(numbers, {9});
    BOOST_TEST((line.slice(4, 5).data() == numbers + 4 && line.slice(4, 5).size() == 5));
    BOOST_TEST((line.slice(9, 0).empty() && m.slice(0, 0).empty()));
}

BOOST_AUTO_TEST_CASE(conversions_lose_knowledge_never_const_or_extents) {
    using known = gf::view<float, 4, 8>;
    using half = gf::view<float, dyn, 8>;
    using reads = gf::view<const float, dyn, dyn>;
    static_assert(std::is_convertible_v<known, half> && std::is_convertible_v<half, reads>);
    static_assert(std::is_convertible_v<known, reads> && std::is_convertible_v<known, gf::view<const float, 4, 8>>);
    static_assert(!std::is_convertible_v<half, known> && !std::is_constructible_v<known, half>);
    static_assert(!std::is_convertible_v<reads, half>);
    static_assert(!std::is_constructible_v<gf::view<float, dyn, 8>, gf::view<float, dyn, 9>>);
    static_assert(!std::is_constructible_v<gf::view<float, dyn>, half>);
    static_assert(!std::is_constructible_v<gf::view<double, dyn, 8>, half>);
    float numbers[40] = {};
    const known v(numbers, {4, 8}, 10);
    const reads r = v;
    BOOST_TEST((r.data() == numbers && r.row_stride() == 10 && r.extent(0) == 4 && r.extent(1) == 8));
}

BOOST_AUTO_TEST_CASE(memory_spaces_do_not_mix) {
    static_assert(!std::is_constructible_v<gf::view<float, dyn, 8>, gf::device_view<float, dyn, 8>>);
    static_assert(!std::is_constructible_v<gf::device_view<const float, dyn>, gf::view<float, dyn>>);
    static_assert(std::is_convertible_v<gf::device_view<float, 3>, gf::device_view<const float, dyn>>);
}

BOOST_AUTO_TEST_CASE(a_view_is_an_argument_of_kernels) {
    using v = gf::view<const float, dyn, 64>;
    static_assert(std::is_trivially_copyable_v<v> && std::is_standard_layout_v<v>);
    static_assert(sizeof(v) == sizeof(void*) + 3 * sizeof(index_t));
    constexpr v nothing;
    static_assert(nothing.data() == nullptr && nothing.empty());
}

BOOST_AUTO_TEST_CASE(extents_are_products_of_64_bits) {
    float one = 0;
    const gf::view<float, dyn, dyn> large(&one, {index_t{1} << 20, index_t{1} << 20});
    BOOST_TEST(large.size() == index_t{1} << 40);
    const gf::view<float, 65536, 65536> known(&one, {65536, 65536});
    BOOST_TEST((known.size() == index_t{1} << 32 && known.row(65535) == &one + (index_t{65535} << 16)));
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
