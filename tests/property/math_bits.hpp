// Hashes of the bits of the library's scalar functions over a fixed sample, and the values they must have everywhere.
#pragma once

#include <bit>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include <gatefold/core/math.hpp>

namespace tests {

namespace gf = gatefold;

/// FNV-1a over the bits of numbers; every NaN counts as the same one, since payloads are nobody's promise.
struct bit_hash {
    std::uint64_t state = 0xcbf29ce484222325u;

    template <class S>
    void add(S value) {
        using word = std::conditional_t<sizeof(S) == 4, std::uint32_t, std::uint64_t>;
        add_word(value == value ? std::bit_cast<word>(value) : ~std::uint64_t{0});
    }
    void add_word(std::uint64_t word) {
        for (int byte = 0; byte < 8; ++byte) state = (state ^ (word >> (8 * byte) & 0xffu)) * 0x100000001b3u;
    }
};

/// The same numbers everywhere: bit patterns spread over all binades, and a grid where the functions bend.
template <class S, class F>
void for_each_sample(F f) {
    using word = std::conditional_t<sizeof(S) == 4, std::uint32_t, std::uint64_t>;
    constexpr auto step = static_cast<word>(0x9e3779b97f4a7c15u);  // golden ratio: even coverage of all patterns
    word bits = 0;
    for (int i = 0; i < 20000; ++i) f(std::bit_cast<S>(bits += step));
    for (int i = -12800; i <= 12800; ++i) f(static_cast<S>(i) / 128);
    for (const double special : {0.0, -0.0, __builtin_huge_val(), -__builtin_huge_val(), __builtin_nan("")})
        f(static_cast<S>(special));
}

/// Hashes f(x) over the sample.
template <class S, class F>
std::uint64_t hash_of(F f) {
    bit_hash hash;
    for_each_sample<S>([&](S x) { hash.add(f(x)); });
    return hash.state;
}

/// Hashes f(x, y, z) over neighbours in the sample, of which many pairs have products near the third.
template <class S, class F>
std::uint64_t hash_of_three(F f) {
    bit_hash hash;
    S a = 1, b = 1;
    for_each_sample<S>([&](S x) {
        hash.add(f(a, b, x));
        hash.add(f(x, b, -gf::mul(x, b)));
        b = a;
        a = x;
    });
    return hash.state;
}

/// Calls check(name, hash, expected hash) for every function and type.
template <class Check>
void for_each_math_bits(Check check) {
    check("fma float", hash_of_three<float>([](float a, float b, float c) { return gf::fma(a, b, c); }),
          0xfad61266bc48885eu);
    check("fma double", hash_of_three<double>([](double a, double b, double c) { return gf::fma(a, b, c); }),
          0x5d283f3217f1eb4eu);
    check("mul float", hash_of_three<float>([](float a, float b, float c) { return gf::mul(a, b) + c; }),
          0x64e8e5159a7f0c53u);
    check("mul double", hash_of_three<double>([](double a, double b, double c) { return gf::mul(a, b) + c; }),
          0xc009328ca56af073u);
    check("exp float", hash_of<float>([](float x) { return gf::exp(x); }), 0x2a9355d9a68d4b01u);
    check("exp double", hash_of<double>([](double x) { return gf::exp(x); }), 0xddef1f2273c1c10du);
    check("log float", hash_of<float>([](float x) { return gf::log(x); }), 0x13b9fb7bb306de6du);
    check("log double", hash_of<double>([](double x) { return gf::log(x); }), 0x999c8190d8e60cf0u);
    check("log1p float", hash_of<float>([](float x) { return gf::log1p(x); }), 0x5e3ac2a4142a39e8u);
    check("log1p double", hash_of<double>([](double x) { return gf::log1p(x); }), 0x11dae4389f9dd976u);
    check("sigmoid float", hash_of<float>([](float x) { return gf::sigmoid(x); }), 0xeb187595fc83b97eu);
    check("sigmoid double", hash_of<double>([](double x) { return gf::sigmoid(x); }), 0x5df76b18aa648888u);
    check("tanh float", hash_of<float>([](float x) { return gf::tanh(x); }), 0x3ae44e88fbb8cf88u);
    check("tanh double", hash_of<double>([](double x) { return gf::tanh(x); }), 0x2e27f12ecbf65965u);
    check("softplus float", hash_of<float>([](float x) { return gf::softplus(x); }), 0x885e0cd2838489cfu);
    check("softplus double", hash_of<double>([](double x) { return gf::softplus(x); }), 0x53b3432588125a96u);
    check("erf float", hash_of<float>([](float x) { return gf::erf(x); }), 0xde5d9692565b3285u);
    check("erf double", hash_of<double>([](double x) { return gf::erf(x); }), 0x7edab2e158271ae5u);
    check("rsqrt float", hash_of<float>([](float x) { return gf::rsqrt(x); }), 0xd98990577ae3b5d0u);
    check("rsqrt double", hash_of<double>([](double x) { return gf::rsqrt(x); }), 0xd5444bf5564baf67u);
}

}  // namespace tests
