// Buffers and allocators: alignment, ownership, failing and foreign allocators, sizes that no memory has.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <utility>

#include <boost/test/unit_test.hpp>

#include <gatefold/core/buffer.hpp>
#include <tests/unit/memory.hpp>

namespace {

namespace gf = gatefold;
using gf::buffer;
using gf::index_t;
using tests::counting_memory;

bool aligned(const void* p, std::size_t to) { return reinterpret_cast<std::uintptr_t>(p) % to == 0; }

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(buffer)

BOOST_AUTO_TEST_CASE(aligned_and_usable_to_the_last_byte) {
    for (index_t n : {1, 3, 64, 1000, 3000000}) {
        gf::buffer<double> b(n);
        BOOST_TEST((b.size() == n && b.bytes() == static_cast<std::size_t>(n) * 8 && aligned(b.data(), 64)));
        std::memset(static_cast<void*>(b.data()), 1, b.bytes());
        // Large blocks lie on huge pages.
        if (b.bytes() >= std::size_t{4} << 20) BOOST_TEST(aligned(b.data(), std::size_t{2} << 20));
    }
}

BOOST_AUTO_TEST_CASE(moves_and_gives_back_once) {
    counting_memory memory;
    {
        gf::buffer<int> a(10, memory.source());
        int* const data = a.data();
        gf::buffer<int> b(std::move(a));
        BOOST_TEST((a.data() == nullptr && a.size() == 0 && b.data() == data && b.size() == 10));
        gf::buffer<int> c(20, memory.source());
        c = std::move(b);
        BOOST_TEST((c.data() == data && c.size() == 10));
        gf::buffer<int> empty(0, memory.source());
        BOOST_TEST((empty.data() == nullptr && memory.given == 2));
        static_assert(!std::is_copy_constructible_v<gf::buffer<int>> && !std::is_copy_assignable_v<gf::buffer<int>>);
        static_assert(std::is_nothrow_move_constructible_v<gf::buffer<int>>);
    }
    BOOST_TEST((memory.returned == 2 && memory.bytes == 0u && memory.sizes_match));
}

BOOST_AUTO_TEST_CASE(memory_returns_to_where_it_came_from) {
    counting_memory one, two;
    {
        gf::buffer<int> a(1, one.source()), b(1, two.source());
        a = std::move(b);
        std::swap(a, b);
    }
    BOOST_TEST((one.given == 1 && one.returned == 1 && two.given == 1 && two.returned == 1));
}

BOOST_AUTO_TEST_CASE(a_failing_allocator) {
    counting_memory memory;
    memory.fails_at = 1;
    gf::buffer<int> first(5, memory.source());
    BOOST_CHECK_THROW(gf::buffer<int>(5, memory.source()), std::bad_alloc);
    BOOST_TEST((memory.given == 1 && memory.refused == 1 && memory.returned == 0));
}

BOOST_AUTO_TEST_CASE(sizes_that_no_memory_has) {
    counting_memory memory;
    BOOST_CHECK_THROW(gf::buffer<int>(-1, memory.source()), gf::argument_error);
    BOOST_CHECK_THROW(gf::buffer<int>((std::numeric_limits<index_t>::max)(), memory.source()), gf::argument_error);
    BOOST_CHECK_THROW(gf::buffer<double>((std::numeric_limits<index_t>::max)() / 8, memory.source()),
                      gf::argument_error);
    BOOST_TEST(memory.given == 0);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
