// ctest: heavy
// Storage types: every 16-bit pattern, every rounding boundary, and the special values, against a plain definition.
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

#include <boost/test/unit_test.hpp>

#include <gatefold/core/dtype.hpp>

namespace {

using gatefold::bf16;
using gatefold::f16;

template <class T>
struct format;
template <>
struct format<bf16> {
    static constexpr int mantissa = 7, bias = 127;
};
template <>
struct format<f16> {
    static constexpr int mantissa = 10, bias = 15;
};

// The value of a bit pattern by the definition of IEEE formats.
template <class T>
double value_of(std::uint32_t bits) {
    constexpr int m = format<T>::mantissa, bias = format<T>::bias;
    const int exponent = static_cast<int>(bits & 0x7fffu) >> m;
    const double fraction = bits & ((1u << m) - 1u), sign = (bits & 0x8000u) != 0 ? -1 : 1;
    if (exponent == 2 * bias + 1) return fraction == 0 ? sign * HUGE_VAL : std::nan("");
    if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - m);
    return sign * std::ldexp(fraction + (1u << m), exponent - bias - m);
}

template <class T>
constexpr std::uint32_t infinity_bits = (2u * format<T>::bias + 1u) << format<T>::mantissa;

template <class T>
void check_every_pattern() {
    int wrong = 0;
    for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
        const T stored = T::from_bits(static_cast<std::uint16_t>(bits));
        const float value = stored;
        const double expected = value_of<T>(bits);
        if (std::isnan(expected)) {
            const std::uint32_t quiet = bits | 1u << (format<T>::mantissa - 1);
            wrong += !std::isnan(value) || T(value).bits != quiet || T(static_cast<double>(value)).bits != quiet;
        } else {
            wrong += static_cast<double>(value) != expected || std::signbit(value) != std::signbit(expected);
            wrong += T(value).bits != bits || T(expected).bits != bits;
        }
    }
    BOOST_TEST(wrong == 0);
}

// Between neighbours: just below the midpoint goes down, the midpoint to the even one, just above goes up.
template <class T>
void check_every_boundary() {
    int wrong = 0;
    for (std::uint32_t low = 0; low < infinity_bits<T>; ++low) {
        const double a = value_of<T>(low);
        const double b = low + 1 < infinity_bits<T> ? value_of<T>(low + 1) : 2 * a - value_of<T>(low - 1);
        const double middle = a + (b - a) / 2;
        const std::uint32_t even = low + (low & 1u);
        for (const double sign : {1.0, -1.0}) {
            const std::uint32_t s = sign < 0 ? 0x8000u : 0u;
            wrong += T(sign * middle).bits != (even | s);
            wrong += T(sign * std::nextafter(middle, 0.0)).bits != (low | s);
            wrong += T(sign * std::nextafter(middle, HUGE_VAL)).bits != ((low + 1) | s);
            const auto m = static_cast<float>(middle);
            if (static_cast<double>(m) != middle)
                continue;  // half of the least bf16 is a float, what lies below may not be
            wrong += T(static_cast<float>(sign) * m).bits != (even | s);
            wrong += T(static_cast<float>(sign) * std::nextafter(m, 0.0f)).bits != (low | s);
            wrong += T(static_cast<float>(sign) * std::nextafter(m, HUGE_VALF)).bits != ((low + 1) | s);
        }
    }
    BOOST_TEST(wrong == 0);
}

template <class T>
void check_special_values() {
    const float infinity = std::numeric_limits<float>::infinity();
    BOOST_TEST(T(infinity).bits == infinity_bits<T>);
    BOOST_TEST(T(-static_cast<double>(infinity)).bits == (infinity_bits<T> | 0x8000u));
    BOOST_TEST(T(std::numeric_limits<double>::max()).bits == infinity_bits<T>);
    BOOST_TEST(T(-0.0f).bits == 0x8000u);
    BOOST_TEST(T(-0.0).bits == 0x8000u);
    BOOST_TEST(T(std::numeric_limits<double>::denorm_min()).bits == 0u);
    BOOST_TEST(T(-std::numeric_limits<double>::denorm_min()).bits == 0x8000u);
    // A NaN whose payload lies in the dropped bits only must not become an infinity.
    const auto low_payload = gatefold::detail::bits_as<float>(std::uint32_t{0x7f800001u});
    BOOST_TEST(std::isnan(static_cast<float>(T(low_payload))));
    const auto low_payload_double = gatefold::detail::bits_as<double>(std::uint64_t{0x7ff0000000000001u});
    BOOST_TEST(std::isnan(static_cast<float>(T(low_payload_double))));
    const auto all_ones = gatefold::detail::bits_as<float>(std::uint32_t{0xffffffffu});
    BOOST_TEST(T(all_ones).bits == 0xffffu);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(dtype)

BOOST_AUTO_TEST_CASE(bf16_every_pattern) { check_every_pattern<bf16>(); }
BOOST_AUTO_TEST_CASE(f16_every_pattern) { check_every_pattern<f16>(); }
BOOST_AUTO_TEST_CASE(bf16_rounds_every_boundary) { check_every_boundary<bf16>(); }
BOOST_AUTO_TEST_CASE(f16_rounds_every_boundary) { check_every_boundary<f16>(); }
BOOST_AUTO_TEST_CASE(bf16_special_values) { check_special_values<bf16>(); }
BOOST_AUTO_TEST_CASE(f16_special_values) { check_special_values<f16>(); }

BOOST_AUTO_TEST_CASE(double_rounds_once) {
    // 1 + 2^-8 + 2^-40 lies above the midpoint of bf16, but its float lies on it and would go to the even 1.
    const double above = 1 + 0x1p-8 + 0x1p-40;
    BOOST_TEST(bf16(static_cast<float>(above)).bits == bf16(1).bits);
    BOOST_TEST(bf16(above).bits == bf16(1).bits + 1);
    const double above_half = 1 + 0x1p-11 + 0x1p-40;
    BOOST_TEST(f16(static_cast<float>(above_half)).bits == f16(1).bits);
    BOOST_TEST(f16(above_half).bits == f16(1).bits + 1);
}

BOOST_AUTO_TEST_CASE(compares_and_computes_by_value) {
    BOOST_TEST((bf16(0.0f) == bf16(-0.0f)));
    BOOST_TEST((bf16(1) < bf16(2)));
    BOOST_TEST((f16(-1) < f16(0.5)));
    BOOST_TEST(!(f16(std::nanf("")) == f16(std::nanf(""))));
    BOOST_TEST((bf16(3) == 3.0f && bf16(3) == 3.0));
    BOOST_TEST(bf16(3) * f16(2) == 6.0f);
}

BOOST_AUTO_TEST_CASE(traits) {
    static_assert(gatefold::scalar<float> && gatefold::scalar<double> && gatefold::scalar<bf16> &&
                  gatefold::scalar<f16>);
    static_assert(!gatefold::scalar<int> && !gatefold::scalar<long double>);
    static_assert(std::is_same_v<gatefold::accumulate_t<bf16>, float> &&
                  std::is_same_v<gatefold::accumulate_t<f16>, float>);
    static_assert(std::is_same_v<gatefold::accumulate_t<float>, float> &&
                  std::is_same_v<gatefold::accumulate_t<double>, double>);
    static_assert(gatefold::to_accumulate(bf16(1.5f)) == 1.5f && gatefold::from_accumulate<f16>(1.5f) == 1.5f);
    static_assert(!std::is_convertible_v<float, bf16> && std::is_convertible_v<bf16, float>);
    static_assert(std::is_trivially_default_constructible_v<bf16> && std::is_trivially_default_constructible_v<f16>);
    BOOST_TEST(std::string(gatefold::dtype_name<float>) == "f32");
    BOOST_TEST(std::string(gatefold::dtype_name<double>) == "f64");
    BOOST_TEST(std::string(gatefold::dtype_name<bf16>) == "bf16");
    BOOST_TEST(std::string(gatefold::dtype_name<f16>) == "f16");
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
