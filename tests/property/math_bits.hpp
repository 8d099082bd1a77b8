// Hashes of the bits of the library's scalar functions over a fixed sample, and the values they must have everywhere.
//
//     sample ── evaluate(function, sample), on the host or on a device ──> outcomes ── hash ──> compared with the
//     constant
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <type_traits>
#include <vector>

#include <gatefold/core/math.hpp>
#include <gatefold/core/random.hpp>
#include <gatefold/ops/activation.hpp>

namespace tests {

namespace gf = gatefold;

/// What a function is called with: a number of the sample, the two before it, and its place.
template <class S>
struct math_arguments {
    S x, before, long_before;
    int place;
};

/// What a function gives: one number, or a value and its gradients.
template <class S>
struct math_outcome {
    S first, second, third;
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

template <class S>
std::vector<math_arguments<S>> math_sample() {
    std::vector<math_arguments<S>> sample;
    math_arguments<S> next{1, 1, 1, 0};
    for_each_sample<S>([&](S x) {
        next = {x, next.x, next.before, next.place + 1};
        sample.push_back(next);
    });
    return sample;
}

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

// ---- the functions
// ---------------------------------------------------------------------------------------------------

struct fma_bits {
    template <class S>
    GATEFOLD_HD math_outcome<S> operator()(const math_arguments<S>& a) const {
        // The second cancels up to the rounding error of the product.
        return {gf::fma(a.before, a.long_before, a.x), gf::fma(a.x, a.before, -gf::mul(a.x, a.before)), S(0)};
    }
};
struct mul_bits {
    template <class S>
    GATEFOLD_HD math_outcome<S> operator()(const math_arguments<S>& a) const {
        return {gf::mul(a.before, a.long_before) + a.x, gf::mul(a.x, a.before) - gf::mul(a.before, a.x), S(0)};
    }
};
struct exp_bits {
    template <class S>
    GATEFOLD_HD math_outcome<S> operator()(const math_arguments<S>& a) const {
        return {gf::exp(a.x), S(0), S(0)};
    }
};
struct log_bits {
    template <class S>
    GATEFOLD_HD math_outcome<S> operator()(const math_arguments<S>& a) const {
        return {gf::log(a.x), S(0), S(0)};
    }
};
struct log1p_bits {
    template <class S>
    GATEFOLD_HD math_outcome<S> operator()(const math_arguments<S>& a) const {
        return {gf::log1p(a.x), S(0), S(0)};
    }
};
struct sigmoid_bits {
    template <class S>
    GATEFOLD_HD math_outcome<S> operator()(const math_arguments<S>& a) const {
        return {gf::sigmoid(a.x), S(0), S(0)};
    }
};
struct tanh_bits {
    template <class S>
    GATEFOLD_HD math_outcome<S> operator()(const math_arguments<S>& a) const {
        return {gf::tanh(a.x), S(0), S(0)};
    }
};
struct softplus_bits {
    template <class S>
    GATEFOLD_HD math_outcome<S> operator()(const math_arguments<S>& a) const {
        return {gf::softplus(a.x), S(0), S(0)};
    }
};
struct erf_bits {
    template <class S>
    GATEFOLD_HD math_outcome<S> operator()(const math_arguments<S>& a) const {
        return {gf::erf(a.x), S(0), S(0)};
    }
};
struct rsqrt_bits {
    template <class S>
    GATEFOLD_HD math_outcome<S> operator()(const math_arguments<S>& a) const {
        return {gf::rsqrt(a.x), S(0), S(0)};
    }
};

template <gf::activation A>
struct activation_bits {
    template <class S>
    GATEFOLD_HD math_outcome<S> operator()(const math_arguments<S>& a) const {
        if constexpr (gf::detail::gated_activation<A>) {
            const auto gradient = gf::activate_backward<A>(a.before, a.x, S(1.25), S(7));
            return {gf::activate<A>(a.before, a.x, S(7)), gradient.d_gate, gradient.d_up};
        } else
            return {gf::activate<A>(a.x, S(7)), gf::activate_backward<A>(a.x, S(1.25), S(7)), S(0)};
    }
};

struct draw_bits {
    template <class S>
    GATEFOLD_HD math_outcome<S> operator()(const math_arguments<S>& a) const {
        const gf::counter_rng rng{0xfedcba9876543210u, 5, a.place % 7};
        const gf::index_t token = a.place / 64, index = a.place % 64;
        return {rng.uniform<S>(gf::purpose::sampling, token, index),
                rng.uniform_from_zero<S>(gf::purpose::dropout, token, index), rng.jitter<S>(token, index, S(0.01))};
    }
};
struct noise_bits {
    template <class S>
    GATEFOLD_HD math_outcome<S> operator()(const math_arguments<S>& a) const {
        const gf::counter_rng rng{3, 1, a.place % 5};
        const gf::index_t token = a.place / 64, index = a.place % 64;
        return {rng.normal<S>(gf::purpose::gaussian, token, index), rng.gumbel<S>(gf::purpose::gumbel, token, index),
                rng.truncated_normal<S>(gf::purpose::initialisation, token, index)};
    }
};

/// Computes on the host, one number after the other.
struct evaluate_here {
    template <class S, class F>
    std::vector<math_outcome<S>> operator()(F f, const std::vector<math_arguments<S>>& sample) const {
        std::vector<math_outcome<S>> outcomes;
        for (const auto& arguments : sample) outcomes.push_back(f(arguments));
        return outcomes;
    }
};

/// Calls check(name, expected hash, hash) for every function and type; `evaluate` computes, as evaluate_here does.
template <class Evaluate, class Check>
void for_each_math_bits(Evaluate evaluate, Check check) {
    const auto floats = math_sample<float>();
    const auto doubles = math_sample<double>();
    const auto hash = [&](auto function, const auto& sample) {
        bit_hash bits;
        for (const auto& outcome : evaluate(function, sample)) {
            bits.add(outcome.first);
            bits.add(outcome.second);
            bits.add(outcome.third);
        }
        return bits.state;
    };
    using act = gf::activation;
    check("fma float", 0xffdd52bf8feedd73u, hash(fma_bits{}, floats));
    check("fma double", 0x98e5ae5b5a64db46u, hash(fma_bits{}, doubles));
    check("mul float", 0x2dc5e3ae3e3faa9bu, hash(mul_bits{}, floats));
    check("mul double", 0x82b0d670599ea6abu, hash(mul_bits{}, doubles));
    check("exp float", 0x9de923424aa1ab81u, hash(exp_bits{}, floats));
    check("exp double", 0x7d0dbb67ed67948du, hash(exp_bits{}, doubles));
    check("log float", 0x07d28aa1d47edcedu, hash(log_bits{}, floats));
    check("log double", 0x2a51bd19d73924b0u, hash(log_bits{}, doubles));
    check("log1p float", 0x244550359cb5bfa8u, hash(log1p_bits{}, floats));
    check("log1p double", 0x9f3a2c70475bf636u, hash(log1p_bits{}, doubles));
    check("sigmoid float", 0x73c114997e84d17eu, hash(sigmoid_bits{}, floats));
    check("sigmoid double", 0x72447e87060ce088u, hash(sigmoid_bits{}, doubles));
    check("tanh float", 0x96ae54bc89419088u, hash(tanh_bits{}, floats));
    check("tanh double", 0x887bdee5345109a5u, hash(tanh_bits{}, doubles));
    check("softplus float", 0xb01ca8aaa7bf61cfu, hash(softplus_bits{}, floats));
    check("softplus double", 0x494aebf50575d016u, hash(softplus_bits{}, doubles));
    check("erf float", 0x4ff0e3dd10b27705u, hash(erf_bits{}, floats));
    check("erf double", 0x5060b3618b4b0825u, hash(erf_bits{}, doubles));
    check("rsqrt float", 0x3a184159f0795e90u, hash(rsqrt_bits{}, floats));
    check("rsqrt double", 0x89a5af01f01183a7u, hash(rsqrt_bits{}, doubles));
    check("swiglu float", 0x18847648e6a04965u, hash(activation_bits<act::swiglu>{}, floats));
    check("swiglu double", 0xacd47b63c1576d39u, hash(activation_bits<act::swiglu>{}, doubles));
    check("geglu_tanh float", 0x8c59d587daa022b6u, hash(activation_bits<act::geglu_tanh>{}, floats));
    check("geglu_tanh double", 0xad3f77f609d0dbd6u, hash(activation_bits<act::geglu_tanh>{}, doubles));
    check("geglu_erf float", 0x6fde4355b98638c7u, hash(activation_bits<act::geglu_erf>{}, floats));
    check("geglu_erf double", 0xbcafb353e2796d7cu, hash(activation_bits<act::geglu_erf>{}, doubles));
    check("reglu float", 0x5c5b59f2f4d5594du, hash(activation_bits<act::reglu>{}, floats));
    check("reglu double", 0x113b9c21fa1d054du, hash(activation_bits<act::reglu>{}, doubles));
    check("bilinear float", 0x847a9b2cff4eafe3u, hash(activation_bits<act::bilinear>{}, floats));
    check("bilinear double", 0x2200d82f6e68dea2u, hash(activation_bits<act::bilinear>{}, doubles));
    check("clamped_swiglu float", 0x84a34cec266243dcu, hash(activation_bits<act::clamped_swiglu>{}, floats));
    check("clamped_swiglu double", 0x8f60f58c6453a356u, hash(activation_bits<act::clamped_swiglu>{}, doubles));
    check("limited_swiglu float", 0xec8229c7c837d275u, hash(activation_bits<act::limited_swiglu>{}, floats));
    check("limited_swiglu double", 0x0cff2741ed2db587u, hash(activation_bits<act::limited_swiglu>{}, doubles));
    check("situ float", 0x2b47ab5b43f3a57au, hash(activation_bits<act::situ>{}, floats));
    check("situ double", 0x3795c279e577d379u, hash(activation_bits<act::situ>{}, doubles));
    check("relu float", 0x8759e07043b62521u, hash(activation_bits<act::relu>{}, floats));
    check("relu double", 0x7140eee126c9470eu, hash(activation_bits<act::relu>{}, doubles));
    check("relu_squared float", 0x933d1ad1cab17e0eu, hash(activation_bits<act::relu_squared>{}, floats));
    check("relu_squared double", 0x905804d974b8f4deu, hash(activation_bits<act::relu_squared>{}, doubles));
    check("gelu_tanh float", 0x761e0720fe48f444u, hash(activation_bits<act::gelu_tanh>{}, floats));
    check("gelu_tanh double", 0x18c4f0f91c38eec0u, hash(activation_bits<act::gelu_tanh>{}, doubles));
    check("gelu_erf float", 0xe0ce8522b29a27dcu, hash(activation_bits<act::gelu_erf>{}, floats));
    check("gelu_erf double", 0xddfe948a0e529405u, hash(activation_bits<act::gelu_erf>{}, doubles));
    check("silu float", 0x510e0cea83c5afddu, hash(activation_bits<act::silu>{}, floats));
    check("silu double", 0x83bc8c7aef893e06u, hash(activation_bits<act::silu>{}, doubles));
    check("draw float", 0x3157bd57c4a72320u, hash(draw_bits{}, floats));
    check("draw double", 0xa58b9068a8054b35u, hash(draw_bits{}, doubles));
    check("noise float", 0xeb796b776f534a88u, hash(noise_bits{}, floats));
    check("noise double", 0xb1bf883b09be7632u, hash(noise_bits{}, doubles));
}

}  // namespace tests
