// The bits of the library's functions are those that every compiler, instruction set and the device give.
#include "math_bits.hpp"

#include <cstdint>
#include <ios>

#include <boost/test/unit_test.hpp>

BOOST_AUTO_TEST_SUITE(property)
BOOST_AUTO_TEST_SUITE(math_bits)

BOOST_AUTO_TEST_CASE(are_the_same_everywhere) {
    tests::for_each_math_bits([](const char* name, std::uint64_t expected, std::uint64_t hash) {
        BOOST_TEST(hash == expected, name << " has other bits: 0x" << std::hex << hash);
    });
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
