// What the tests of views, tensors and tensor operations share: numbers to fill them with, their bytes, their errors.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/core/context.hpp>
#include <gatefold/core/dtype.hpp>
#include <gatefold/core/tensor.hpp>

namespace tests {

namespace gf = gatefold;
using gf::bf16;
using gf::dyn;
using gf::f16;
using gf::index_t;

/// Half a unit in the last place of 1, doubled: what one rounding to T may do, relative to the value.
template <class T>
constexpr double rounding = std::is_same_v<T, double>  ? 0x1p-52
                            : std::is_same_v<T, float> ? 0x1p-23
                            : std::is_same_v<T, f16>   ? 0x1p-10
                                                       : 0x1p-7;

/// Numbers in [-1, 1) from a linear congruential generator; the same ones for the same seed.
class numbers {
public:
    explicit numbers(std::uint64_t seed) : state_(seed * 2654435769u + 88172645463325252u) {}
    double operator()() {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        return static_cast<double>(state_ >> 40) * 0x1p-23 - 1;
    }
    int below(int n) { return static_cast<int>(((*this)() + 1) / 2 * n); }

private:
    std::uint64_t state_;
};

template <class V>
void randomise(const V& v, std::uint64_t seed, double scale = 1, double shift = 0) {
    numbers next(seed);
    for (index_t r = 0; r < v.rows(); ++r)
        for (index_t i = 0; i < v.extent(V::rank - 1); ++i)
            v.row(r)[i] = static_cast<typename V::value_type>(scale * next() + shift);
}

/// A tensor of random numbers.
template <class T, int... E, class... N>
gf::tensor<T, E...> random_tensor(std::uint64_t seed, N... extents) {
    gf::context<gf::cpu> ctx(1);
    auto t = gf::make_tensor<T, E...>(ctx, extents...);
    randomise(t.view(), seed);
    return t;
}
template <class T, int... E, class... N>
gf::tensor<T, E...> zero_tensor(N... extents) {
    gf::context<gf::cpu> ctx(1);
    auto t = gf::make_tensor<T, E...>(ctx, extents...);
    t.set_zero();
    return t;
}

template <class Tensor>
std::vector<std::byte> bytes_of(const Tensor& t) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(t.size()) * sizeof(typename Tensor::value_type));
    if (!bytes.empty()) std::memcpy(bytes.data(), t.data(), bytes.size());
    return bytes;
}
template <class Tensor>
bool same_bits(const Tensor& a, const Tensor& b) {
    return a.size() == b.size() &&
           (a.size() == 0 ||
            std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(*a.data())) == 0);
}

/// Is `value` within `units` roundings of T of the expected one, on the scale of `magnitude`?
template <class T>
bool close(double value, double expected, double units, double magnitude) {
    const double scale = std::fabs(expected) > magnitude ? std::fabs(expected) : magnitude;
    return std::fabs(value - expected) <= units * rounding<T> * scale;
}

/// A context of several threads whose parts run one after another, last part first: results may not notice.
inline gf::context<gf::cpu> backwards(int threads) {
    gf::context_options options;
    options.threads = threads;
    options.runs = {nullptr, [](void*, int parts, void (*part)(void*, int), void* argument) {
                        for (int p = parts; p-- > 0;) part(argument, p);
                    }};
    return gf::context<gf::cpu>(options);
}

/// Checks that `call` throws an argument_error that holds all of `parts`, and leaves the bytes of `out` alone.
template <class Out, class Call>
void check_rejects(const Out& out, Call call, const std::vector<std::string>& parts) {
    const auto before = bytes_of(out);
    try {
        call();
        BOOST_ERROR("no argument_error; expected one with: " + parts[0]);
    } catch (const gf::argument_error& error) {
        const std::string text = error.what();
        for (const std::string& part : parts)
            BOOST_TEST(text.find(part) != std::string::npos, "'" << text << "' does not say '" << part << "'");
    }
    BOOST_TEST((bytes_of(out) == before), "the output changed: " << parts[0]);
}

}  // namespace tests
