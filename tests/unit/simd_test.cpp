// The vector type of the CPU kernels: every lane gives the bits of the scalar functions, loads and stores touch exactly
// what they are told to, transposes turn.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/core/math.hpp>
#include <gatefold/cpu/simd/denormals.hpp>
#include <gatefold/cpu/simd/number.hpp>
#include <gatefold/cpu/simd/tiles.hpp>
#include <gatefold/cpu/simd/transpose.hpp>
#include <gatefold/cpu/simd/vec.hpp>

namespace {

namespace gf = gatefold;
namespace k = gatefold::detail::on_cpu;
using gf::bf16;
using gf::f16;

struct bit_source {
    std::uint64_t state = 88172645463325252u;
    std::uint64_t operator()() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
    }
};

template <class T>
std::uint64_t bits_of(T value) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
}
template <class T>
T from_bits(std::uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

template <class T>
void same_bits(T got, T expected) {
    const bool both_nan = std::isnan(static_cast<double>(got)) && std::isnan(static_cast<double>(expected));
    BOOST_TEST((both_nan || bits_of(got) == bits_of(expected)));
}

// Any pattern for two-byte types; the others as well, specials included.
template <class T>
T any(bit_source& next) {
    const std::uint64_t b = next();
    if (sizeof(T) > 2 && b % 8 == 0) return static_cast<T>(static_cast<double>(b % 17) - 8);
    if (sizeof(T) > 2 && b % 8 == 1)
        return b % 3 == 0   ? std::numeric_limits<T>::infinity()
               : b % 3 == 1 ? T{}
                            : std::numeric_limits<T>::denorm_min();
    return from_bits<T>(next());
}

template <class A, class T>
void memory() {
    constexpr int n = k::lanes<A>;
    bit_source next;
    for (int round = 0; round < 300; ++round) {
        std::vector<T> from(static_cast<std::size_t>(n) + 1);
        for (T& x : from) x = any<T>(next);
        const k::vec<A> v = k::load<A>(from.data() + 1);
        for (int i = 0; i < n; ++i) same_bits<A>(v[i], static_cast<A>(from[static_cast<std::size_t>(i) + 1]));

        std::vector<A> wide(static_cast<std::size_t>(n));
        for (A& x : wide) x = any<A>(next);
        std::vector<T> to(static_cast<std::size_t>(n) + 1);
        k::store(to.data() + 1, k::load<A>(wide.data()));
        for (int i = 0; i < n; ++i)
            same_bits<T>(to[static_cast<std::size_t>(i) + 1], static_cast<T>(wide[static_cast<std::size_t>(i)]));

        for (int count = -1; count <= n + 1; ++count) {
            const int inside = count < 0 ? 0 : count < n ? count : n;
            // Exactly as much memory as may be read: a checker of accesses sees anything beyond.
            const std::vector<T> part(from.begin(), from.begin() + inside);
            const k::vec<A> first = k::load_first<A>(part.data(), count);
            for (int i = 0; i < n; ++i)
                same_bits<A>(first[i], i < inside ? static_cast<A>(part[static_cast<std::size_t>(i)]) : A{});
            std::vector<T> kept(static_cast<std::size_t>(n), from_bits<T>(0x3c01));
            k::store_first(kept.data(), k::load<A>(wide.data()), count);
            for (int i = 0; i < n; ++i)
                same_bits<T>(kept[static_cast<std::size_t>(i)],
                             i < inside ? static_cast<T>(wide[static_cast<std::size_t>(i)]) : from_bits<T>(0x3c01));
        }
    }
}

// Around every place where rounding to two bytes changes its mind: the ends of the exponents, ties and their
// neighbours.
void rounds_to_bf16() {
    constexpr int n = k::lanes<float>;
    std::vector<float> values;
    for (const std::uint32_t exponent : {0u, 1u, 2u, 127u, 253u, 254u, 255u})
        for (const std::uint32_t kept : {0u, 1u, 2u, 3u, 0x3fu, 0x40u, 0x7eu, 0x7fu})
            for (const std::uint32_t gone : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
                for (const std::uint32_t sign : {0u, 1u})
                    values.push_back(from_bits<float>(sign << 31 | exponent << 23 | kept << 16 | gone));
    while (values.size() % static_cast<std::size_t>(n) != 0) values.push_back(0);
    for (std::size_t at = 0; at < values.size(); at += static_cast<std::size_t>(n)) {
        bf16 rounded[std::size_t{n}];
        k::store(rounded, k::load<float>(values.data() + at));
        for (int i = 0; i < n; ++i) same_bits(rounded[i], bf16(values[at + static_cast<std::size_t>(i)]));
    }
}

template <class T>
void pairs() {
    constexpr int n = 2 * k::lanes<float>;
    bit_source next;
    std::vector<T> from(std::size_t{n});
    for (T& x : from) x = any<T>(next);
    for (int count = -1; count <= n + 1; ++count) {
        const int inside = count < 0 ? 0 : count < n ? count : n;
        const std::vector<T> part(from.begin(), from.begin() + inside);
        const k::vec<float> words = k::load_words_first(part.data(), count);
        T got[std::size_t{n}];
        std::memcpy(got, &words.raw, sizeof got);
        for (int i = 0; i < n; ++i)
            BOOST_TEST(bits_of(got[i]) == (i < inside ? bits_of(part[static_cast<std::size_t>(i)]) : 0u));
    }
}

template <class T>
void arithmetic() {
    constexpr int n = k::lanes<T>;
    bit_source next;
    for (int round = 0; round < 2000; ++round) {
        T a[std::size_t{n}], b[std::size_t{n}], c[std::size_t{n}];
        for (int i = 0; i < n; ++i) a[i] = any<T>(next), b[i] = any<T>(next), c[i] = any<T>(next);
        const auto x = k::load<T>(a), y = k::load<T>(b), z = k::load<T>(c);
        using N = gf::number<k::vec<T>>;
        for (int i = 0; i < n; ++i) {
            same_bits<T>(k::mul(x, y)[i], gf::mul(a[i], b[i]));
            same_bits<T>(k::add(x, y)[i], a[i] + b[i]);
            same_bits<T>(gf::fma(x, y, z)[i], gf::fma(a[i], b[i], c[i]));
            same_bits<T>(k::add(k::mul(x, y), z)[i], gf::mul(a[i], b[i]) + c[i]);
            same_bits<T>(N::lesser(x, y)[i], a[i] < b[i] ? a[i] : b[i]);
            same_bits<T>(N::greater(x, y)[i], a[i] > b[i] ? a[i] : b[i]);
            same_bits<T>(N::sqrt(x)[i], gf::sqrt(a[i]));
            same_bits<T>(gf::exp(x)[i], gf::exp(a[i]));
            same_bits<T>(gf::sigmoid(x)[i], gf::sigmoid(a[i]));
            same_bits<T>(gf::tanh(x)[i], gf::tanh(a[i]));
            same_bits<T>(gf::erf(x)[i], gf::erf(a[i]));
        }
    }
}

template <class T>
void turns() {
    constexpr int n = k::lanes<T>;
    k::vec<T> rows[std::size_t{n}];
    for (int i = 0; i < n; ++i)
        for (int j = 0; j < n; ++j) rows[i].raw[j] = static_cast<T>(100 * i + j);
    k::transpose(rows);
    for (int i = 0; i < n; ++i)
        for (int j = 0; j < n; ++j) BOOST_TEST(rows[i][j] == static_cast<T>(100 * j + i));
}

template <int Count>
void first_lanes() {
    constexpr int n = k::lanes<float>;
    k::vec<float> v;
    for (int i = 0; i < n; ++i) v.raw[i] = static_cast<float>(i + 1);
    for (int i = 0; i < n; ++i) BOOST_TEST(k::first_of(v, Count)[i] == (i < Count ? v[i] : 0.0f));
}

GATEFOLD_NOINLINE float product(float a, float b) { return gf::mul(a, b); }

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(simd)

BOOST_AUTO_TEST_CASE(float_memory) { memory<float, float>(); }
BOOST_AUTO_TEST_CASE(double_memory) { memory<double, double>(); }
BOOST_AUTO_TEST_CASE(bf16_memory) { memory<float, bf16>(); }
BOOST_AUTO_TEST_CASE(bf16_rounding) { rounds_to_bf16(); }
BOOST_AUTO_TEST_CASE(f16_memory) { memory<float, f16>(); }
BOOST_AUTO_TEST_CASE(pairs_as_words) {
    pairs<bf16>();
    pairs<f16>();
}
BOOST_AUTO_TEST_CASE(float_arithmetic) { arithmetic<float>(); }
BOOST_AUTO_TEST_CASE(double_arithmetic) { arithmetic<double>(); }
BOOST_AUTO_TEST_CASE(transposes) {
    turns<float>();
    turns<double>();
}
BOOST_AUTO_TEST_CASE(first_of) {
    first_lanes<-1>();
    first_lanes<0>();
    first_lanes<3>();
    first_lanes<k::lanes<float>>();
}
#if GATEFOLD_AVX512
BOOST_AUTO_TEST_CASE(transposes_of_halves) {
    k::vec<float> halves[8];
    for (int i = 0; i < 16; ++i)
        for (int j = 0; j < 8; ++j) halves[i % 8].raw[i / 8 * 8 + j] = static_cast<float>(100 * i + j);
    k::transpose_halves(halves);
    for (int j = 0; j < 8; ++j)
        for (int i = 0; i < 16; ++i) BOOST_TEST(halves[j][i] == static_cast<float>(100 * i + j));
}
#endif

BOOST_AUTO_TEST_CASE(subnormals_are_flushed_inside_the_scope_only) {
    volatile float small = 0x1p-100f;
    const float before = product(small, 0x1p-40f);
    float inside;
    {
        const k::flush_subnormals mode;
        inside = product(small, 0x1p-40f);
    }
    BOOST_TEST(before == 0x1p-140f);
    BOOST_TEST(product(small, 0x1p-40f) == before);
#if defined(__x86_64__) || defined(__aarch64__)
    BOOST_TEST(inside == 0.0f);
#endif
}

BOOST_AUTO_TEST_CASE(tiles_multiply_in_the_portable_order) {
    // Row 0 of A against column 0 of B: even and odd products in chains of their own, then one sum.
    alignas(64) bf16 a[16][32] = {}, b[16][32] = {};
    alignas(64) float c[16][16] = {};
    const auto set = [&](int at, float x, float y) { a[0][at] = bf16(x), b[at / 2][at % 2] = bf16(y); };
    set(0, 1, 1);
    set(2, 0x1p-24f, 1);  // lost in the even chain, which holds 1 + 2^-24 no better than 1
    set(1, 0x1p-24f, 1);
    set(3, 0x1p-24f, 1);  // 2^-23 in the odd chain: survives
    c[0][0] = 2;
    c[1][0] = 7;
    k::software_tiles unit;
    unit.configure({1, 1, 1, 1, 1, 16, 16, 16});
    unit.load<0>(c, 64);
    unit.load<4>(a, 64);
    unit.load<5>(b, 64);
    unit.multiply<0, 4, 5>();
    unit.store<0>(c, 64);
    BOOST_TEST(c[0][0] == 2 + (1 + 0x1p-23f));
    BOOST_TEST(c[1][0] == 7);  // beyond the tile's one row
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
