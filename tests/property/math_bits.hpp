// Hashes of the bits of the library's scalar functions over a fixed sample, and the values they must have everywhere.
#pragma once

#include <bit>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include <gatefold/core/math.hpp>
#include <gatefold/core/random.hpp>
#include <gatefold/ops/activation.hpp>

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

/// Hashes an activation and its gradients over neighbours in the sample.
template <gf::activation A, class S>
std::uint64_t hash_of_activation() {
    bit_hash hash;
    S before = 1;
    const S limit = gf::is_limited(A) ? S(7) : S(0);
    for_each_sample<S>([&](S x) {
        hash.add(gf::activate<A>(before, x, limit));
        const auto gradient = gf::activate_backward<A>(before, x, S(1.25), limit);
        hash.add(gradient.d_gate);
        hash.add(gradient.d_up);
        before = x;
    });
    return hash.state;
}

template <gf::activation A, class S>
    requires(!gf::is_gated(A))
std::uint64_t hash_of_activation() {
    bit_hash hash;
    for_each_sample<S>([&](S x) {
        hash.add(gf::activate<A>(x, S(0)));
        hash.add(gf::activate_backward<A>(x, S(1.25), S(0)));
    });
    return hash.state;
}

/// Hashes one kind of draw over seeds, layers, tokens and indices.
template <class F>
std::uint64_t hash_of_draws(F f) {
    bit_hash hash;
    for (const std::uint64_t seed : {std::uint64_t{1}, std::uint64_t{0xfedcba9876543210u}})
        for (int layer = 0; layer < 3; ++layer)
            for (gf::index_t token = 0; token < 20; ++token)
                for (gf::index_t index = 0; index < 60; ++index)
                    hash.add(f(gf::counter_rng{seed, 5, layer}, token, index));
    return hash.state;
}

/// Calls check(name, expected hash, hash) for every function and type.
template <class Check>
void for_each_math_bits(Check check) {
    check("fma float", 0xfad61266bc48885eu,
          hash_of_three<float>([](float a, float b, float c) { return gf::fma(a, b, c); }));
    check("mul float", 0x64e8e5159a7f0c53u,
          hash_of_three<float>([](float a, float b, float c) { return gf::mul(a, b) + c; }));
    check("fma double", 0x5d283f3217f1eb4eu,
          hash_of_three<double>([](double a, double b, double c) { return gf::fma(a, b, c); }));
    check("mul double", 0xc009328ca56af073u,
          hash_of_three<double>([](double a, double b, double c) { return gf::mul(a, b) + c; }));
    check("exp float", 0x2a9355d9a68d4b01u, hash_of<float>([](float x) { return gf::exp(x); }));
    check("exp double", 0xddef1f2273c1c10du, hash_of<double>([](double x) { return gf::exp(x); }));
    check("log float", 0x13b9fb7bb306de6du, hash_of<float>([](float x) { return gf::log(x); }));
    check("log double", 0x999c8190d8e60cf0u, hash_of<double>([](double x) { return gf::log(x); }));
    check("log1p float", 0x5e3ac2a4142a39e8u, hash_of<float>([](float x) { return gf::log1p(x); }));
    check("log1p double", 0x11dae4389f9dd976u, hash_of<double>([](double x) { return gf::log1p(x); }));
    check("sigmoid float", 0xeb187595fc83b97eu, hash_of<float>([](float x) { return gf::sigmoid(x); }));
    check("sigmoid double", 0x5df76b18aa648888u, hash_of<double>([](double x) { return gf::sigmoid(x); }));
    check("tanh float", 0x3ae44e88fbb8cf88u, hash_of<float>([](float x) { return gf::tanh(x); }));
    check("tanh double", 0x2e27f12ecbf65965u, hash_of<double>([](double x) { return gf::tanh(x); }));
    check("softplus float", 0x885e0cd2838489cfu, hash_of<float>([](float x) { return gf::softplus(x); }));
    check("softplus double", 0x53b3432588125a96u, hash_of<double>([](double x) { return gf::softplus(x); }));
    check("erf float", 0xde5d9692565b3285u, hash_of<float>([](float x) { return gf::erf(x); }));
    check("erf double", 0x7edab2e158271ae5u, hash_of<double>([](double x) { return gf::erf(x); }));
    check("rsqrt float", 0xd98990577ae3b5d0u, hash_of<float>([](float x) { return gf::rsqrt(x); }));
    check("rsqrt double", 0xd5444bf5564baf67u, hash_of<double>([](double x) { return gf::rsqrt(x); }));
    check("swiglu float", 0x18847648e6a04965u, hash_of_activation<gf::activation::swiglu, float>());
    check("swiglu double", 0xacd47b63c1576d39u, hash_of_activation<gf::activation::swiglu, double>());
    check("geglu_tanh float", 0x8c59d587daa022b6u, hash_of_activation<gf::activation::geglu_tanh, float>());
    check("geglu_tanh double", 0xad3f77f609d0dbd6u, hash_of_activation<gf::activation::geglu_tanh, double>());
    check("geglu_erf float", 0x6fde4355b98638c7u, hash_of_activation<gf::activation::geglu_erf, float>());
    check("geglu_erf double", 0xbcafb353e2796d7cu, hash_of_activation<gf::activation::geglu_erf, double>());
    check("reglu float", 0x5c5b59f2f4d5594du, hash_of_activation<gf::activation::reglu, float>());
    check("reglu double", 0x113b9c21fa1d054du, hash_of_activation<gf::activation::reglu, double>());
    check("bilinear float", 0x847a9b2cff4eafe3u, hash_of_activation<gf::activation::bilinear, float>());
    check("bilinear double", 0x2200d82f6e68dea2u, hash_of_activation<gf::activation::bilinear, double>());
    check("clamped_swiglu float", 0x84a34cec266243dcu, hash_of_activation<gf::activation::clamped_swiglu, float>());
    check("clamped_swiglu double", 0x8f60f58c6453a356u, hash_of_activation<gf::activation::clamped_swiglu, double>());
    check("limited_swiglu float", 0xec8229c7c837d275u, hash_of_activation<gf::activation::limited_swiglu, float>());
    check("limited_swiglu double", 0x0cff2741ed2db587u, hash_of_activation<gf::activation::limited_swiglu, double>());
    check("situ float", 0x2b47ab5b43f3a57au, hash_of_activation<gf::activation::situ, float>());
    check("situ double", 0x3795c279e577d379u, hash_of_activation<gf::activation::situ, double>());
    check("relu float", 0xb4ca1e5f6a93c4e1u, hash_of_activation<gf::activation::relu, float>());
    check("relu double", 0x54f32eb39b730c6eu, hash_of_activation<gf::activation::relu, double>());
    check("relu_squared float", 0xc2a165d79f0d722eu, hash_of_activation<gf::activation::relu_squared, float>());
    check("relu_squared double", 0x9dfcae6768f9da3eu, hash_of_activation<gf::activation::relu_squared, double>());
    check("gelu_tanh float", 0xfe53e374b2ee43e4u, hash_of_activation<gf::activation::gelu_tanh, float>());
    check("gelu_tanh double", 0x467e0ca6719d8aa0u, hash_of_activation<gf::activation::gelu_tanh, double>());
    check("gelu_erf float", 0xf1c9ecee3f10535cu, hash_of_activation<gf::activation::gelu_erf, float>());
    check("gelu_erf double", 0x205492ef2678de45u, hash_of_activation<gf::activation::gelu_erf, double>());
    check("silu float", 0x387f6fdf9fbe601du, hash_of_activation<gf::activation::silu, float>());
    check("silu double", 0xd1d6551e73eb0726u, hash_of_activation<gf::activation::silu, double>());
    using gf::counter_rng, gf::index_t, gf::purpose;
    check("uniform float", 0xfe95a357a99eb04bu,
          hash_of_draws([](counter_rng r, index_t t, index_t i) { return r.uniform<float>(purpose::sampling, t, i); }));
    check("uniform double", 0x323fe20bf0e80484u, hash_of_draws([](counter_rng r, index_t t, index_t i) {
              return r.uniform<double>(purpose::sampling, t, i);
          }));
    check("normal float", 0x2f529d9dc170857au,
          hash_of_draws([](counter_rng r, index_t t, index_t i) { return r.normal<float>(purpose::gaussian, t, i); }));
    check("normal double", 0x35d41998c216d720u,
          hash_of_draws([](counter_rng r, index_t t, index_t i) { return r.normal<double>(purpose::gaussian, t, i); }));
    check("truncated_normal float", 0xa99c99cd1a187512u, hash_of_draws([](counter_rng r, index_t t, index_t i) {
              return r.truncated_normal<float>(purpose::initialisation, t, i);
          }));
    check("truncated_normal double", 0x6aaf9f9ff26cf415u, hash_of_draws([](counter_rng r, index_t t, index_t i) {
              return r.truncated_normal<double>(purpose::initialisation, t, i);
          }));
    check("gumbel float", 0xea3bdb45e20f75b1u,
          hash_of_draws([](counter_rng r, index_t t, index_t i) { return r.gumbel<float>(purpose::gumbel, t, i); }));
    check("gumbel double", 0xa0ddbf16dd862d5eu,
          hash_of_draws([](counter_rng r, index_t t, index_t i) { return r.gumbel<double>(purpose::gumbel, t, i); }));
    check("jitter float", 0x85d076f53df9942du,
          hash_of_draws([](counter_rng r, index_t t, index_t i) { return r.jitter<float>(t, i, 0.01f); }));
    check("jitter double", 0xd23da097fdcabb64u,
          hash_of_draws([](counter_rng r, index_t t, index_t i) { return r.jitter<double>(t, i, 0.01); }));
}

}  // namespace tests
