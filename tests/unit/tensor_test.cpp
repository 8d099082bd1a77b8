// Tensors: extents known and unknown, ownership, conversions to views, overflow, failing allocators.
#include <cstdint>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

#include <boost/test/unit_test.hpp>

#include <gatefold/core/tensor.hpp>
#include <tests/unit/memory.hpp>

namespace {

namespace gf = gatefold;
using gf::dyn;
using gf::index_t;
using tests::counting_memory;

float total(gf::view<const float, dyn, 3> v) {
    float sum = 0;
    for (index_t r = 0; r < v.rows(); ++r)
        for (int i = 0; i < 3; ++i) sum += v(r, i);
    return sum;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(tensor)

BOOST_AUTO_TEST_CASE(extents_from_the_type_and_from_arguments) {
    gf::context<gf::cpu> ctx(1);
    auto t = gf::make_tensor<float, dyn, 3, dyn>(ctx, 4, 5);
    static_assert(std::is_same_v<decltype(t), gf::tensor<float, dyn, 3, dyn>>);
    BOOST_TEST((t.extent(0) == 4 && t.extent(1) == 3 && t.extent(2) == 5 && t.size() == 60));
    BOOST_TEST(reinterpret_cast<std::uintptr_t>(t.data()) % 64 == 0u);
    auto known = gf::make_tensor<double, 2, 3>(ctx);
    known.set_zero();
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 3; ++j) BOOST_TEST(known(i, j) == 0);
    auto none = gf::make_tensor<float, dyn, 64>(ctx, 0);
    none.set_zero();
    BOOST_TEST((none.size() == 0 && none.data() == nullptr && none.view().empty()));
}

BOOST_AUTO_TEST_CASE(views_of_it) {
    gf::context<gf::cpu> ctx(1);
    auto t = gf::make_tensor<float, dyn, 3>(ctx, 2);
    for (int i = 0; i < 6; ++i) t.data()[i] = static_cast<float>(i);
    BOOST_TEST((t(1, 2) == 5 && t.view()(0, 1) == 1));
    const auto& fixed = t;
    static_assert(std::is_same_v<decltype(fixed.view()), gf::view<const float, dyn, 3>>);
    static_assert(std::is_same_v<decltype(t.view()), gf::view<float, dyn, 3>>);
    static_assert(std::is_same_v<decltype(fixed(0, 0)), const float&>);
    BOOST_TEST((total(t) == 15 && total(fixed) == 15 && total(t.view()) == 15));
    static_assert(!std::is_convertible_v<const gf::tensor<float, dyn, 3>&, gf::view<float, dyn, 3>>);
}

BOOST_AUTO_TEST_CASE(a_moved_tensor_is_empty) {
    gf::context<gf::cpu> ctx(1);
    auto a = gf::make_tensor<float, dyn, 3>(ctx, 2);
    float* const data = a.data();
    auto b = std::move(a);
    BOOST_TEST((b.data() == data && b.extent(0) == 2 && b.extent(1) == 3));
    BOOST_TEST((a.data() == nullptr && a.size() == 0 && a.extent(0) == 0 && a.view().empty()));
    auto c = gf::make_tensor<float, dyn, 3>(ctx, 7);
    c = std::move(b);
    BOOST_TEST((c.data() == data && c.extent(0) == 2 && c.size() == 6));
    static_assert(!std::is_copy_constructible_v<decltype(c)> && std::is_nothrow_move_assignable_v<decltype(c)>);
}

BOOST_AUTO_TEST_CASE(extents_that_cannot_be) {
    gf::context<gf::cpu> ctx(1);
    BOOST_CHECK_THROW((gf::make_tensor<float, dyn, 3>(ctx, -1)), gf::argument_error);
    const index_t large = index_t{1} << 40;
    BOOST_CHECK_THROW((gf::make_tensor<float, dyn, dyn>(ctx, large, large)), gf::argument_error);
    BOOST_CHECK_THROW((gf::make_tensor<float, dyn, dyn, dyn>(ctx, large, large, 0)), gf::argument_error);
    BOOST_CHECK_THROW((gf::make_tensor<double, dyn>(ctx, (std::numeric_limits<index_t>::max)())), gf::argument_error);
    // Extents that contradict the type.
    BOOST_CHECK_THROW((gf::tensor<float, dyn, 3>({2, 4})), gf::argument_error);
}

BOOST_AUTO_TEST_CASE(memory_of_the_context) {
    counting_memory memory;
    gf::context_options options;
    options.memory = memory.source();
    gf::context<gf::cpu> ctx(options);
    {
        auto t = gf::make_tensor<float, 10, 10>(ctx);
        BOOST_TEST((memory.given == 1 && memory.bytes == 400u));
        memory.fails_at = 1;
        BOOST_CHECK_THROW((gf::make_tensor<float, 10>(ctx)), std::bad_alloc);
        t(9, 9) = 1;
    }
    BOOST_TEST((memory.returned == 1 && memory.bytes == 0u));
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
