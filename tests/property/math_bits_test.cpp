// ctest: heavy
// The bits of the library's functions are those that every compiler, instruction set, vector lane and the device give.
#include "math_bits.hpp"

#include <cstddef>
#include <cstdint>
#include <ios>
#include <vector>

#include <boost/mpl/list.hpp>
#include <boost/test/unit_test.hpp>

#include <gatefold/cpu/simd/number.hpp>

namespace {

namespace gf = gatefold;
namespace on_cpu = gf::detail::on_cpu;
using act = gf::activation;

// Calls f on neighbours in the sample, alone and as lanes of a vector, and counts the lanes that differ.
template <class S, class F>
int different_lanes(F f) {
    constexpr int lanes = on_cpu::lanes<S>;
    using vector = on_cpu::vec<S, lanes>;
    std::vector<S> sample;
    tests::for_each_sample<S>([&](S x) { sample.push_back(x); });

    int different = 0;
    for (std::size_t first = 0; first + 2 * lanes <= sample.size(); first += lanes) {
        vector a{}, b{};
        for (int lane = 0; lane < lanes; ++lane) {
            a.raw[lane] = sample[first + static_cast<std::size_t>(lane)];
            b.raw[lane] = sample[first + static_cast<std::size_t>(lane) + lanes];
        }
        const vector together = f(a, b);
        for (int lane = 0; lane < lanes; ++lane) {
            tests::bit_hash one, many;  // of a single number: equal where the bits are, or both are NaNs
            one.add(f(S(a.raw[lane]), S(b.raw[lane])));
            many.add(S(together.raw[lane]));
            different += one.state != many.state;
        }
    }
    return different;
}

template <act A, class S>
int different_lanes_of() {
    const auto number = [](auto like, S value) { return gf::number<decltype(like)>::broadcast(value); };
    if constexpr (gf::is_gated(A)) {
        const S limit = 7;
        return different_lanes<S>([=](auto g, auto u) { return gf::activate<A>(g, u, number(g, limit)); }) +
               different_lanes<S>([=](auto g, auto u) {
                   return gf::activate_backward<A>(g, u, number(g, S(1.25)), number(g, limit)).d_gate;
               }) +
               different_lanes<S>([=](auto g, auto u) {
                   return gf::activate_backward<A>(g, u, number(g, S(1.25)), number(g, limit)).d_up;
               });
    } else
        return different_lanes<S>([](auto x, auto d) { return gf::activate<A>(x, d); }) +
               different_lanes<S>([](auto x, auto d) { return gf::activate_backward<A>(x, d, d); });
}

using reals = boost::mpl::list<float, double>;

}  // namespace

BOOST_AUTO_TEST_SUITE(property)
BOOST_AUTO_TEST_SUITE(math_bits)

BOOST_AUTO_TEST_CASE(are_the_same_everywhere) {
    tests::for_each_math_bits(tests::evaluate_here{}, [](const char* name, std::uint64_t expected, std::uint64_t hash) {
        BOOST_TEST(hash == expected, name << " has other bits: 0x" << std::hex << hash);
    });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(functions_are_the_same_in_every_lane, S, reals) {
    BOOST_TEST(different_lanes<S>([](auto x, auto y) { return gf::fma(x, y, gf::mul(x, y) + y); }) == 0);
    BOOST_TEST(different_lanes<S>([](auto x, auto) { return gf::exp(x); }) == 0);
    BOOST_TEST(different_lanes<S>([](auto x, auto) { return gf::log(x); }) == 0);
    BOOST_TEST(different_lanes<S>([](auto x, auto) { return gf::log1p(x); }) == 0);
    BOOST_TEST(different_lanes<S>([](auto x, auto) { return gf::sigmoid(x); }) == 0);
    BOOST_TEST(different_lanes<S>([](auto x, auto) { return gf::tanh(x); }) == 0);
    BOOST_TEST(different_lanes<S>([](auto x, auto) { return gf::softplus(x); }) == 0);
    BOOST_TEST(different_lanes<S>([](auto x, auto) { return gf::erf(x); }) == 0);
    BOOST_TEST(different_lanes<S>([](auto x, auto) { return gf::rsqrt(x); }) == 0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(activations_are_the_same_in_every_lane, S, reals) {
    BOOST_TEST((different_lanes_of<act::swiglu, S>()) == 0);
    BOOST_TEST((different_lanes_of<act::geglu_tanh, S>()) == 0);
    BOOST_TEST((different_lanes_of<act::geglu_erf, S>()) == 0);
    BOOST_TEST((different_lanes_of<act::reglu, S>()) == 0);
    BOOST_TEST((different_lanes_of<act::bilinear, S>()) == 0);
    BOOST_TEST((different_lanes_of<act::clamped_swiglu, S>()) == 0);
    BOOST_TEST((different_lanes_of<act::limited_swiglu, S>()) == 0);
    BOOST_TEST((different_lanes_of<act::situ, S>()) == 0);
    BOOST_TEST((different_lanes_of<act::relu, S>()) == 0);
    BOOST_TEST((different_lanes_of<act::relu_squared, S>()) == 0);
    BOOST_TEST((different_lanes_of<act::gelu_tanh, S>()) == 0);
    BOOST_TEST((different_lanes_of<act::gelu_erf, S>()) == 0);
    BOOST_TEST((different_lanes_of<act::silu, S>()) == 0);
    BOOST_TEST((different_lanes_of<act::identity, S>()) == 0);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
