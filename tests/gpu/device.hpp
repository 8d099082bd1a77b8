// What the CUDA tests share: layers on both backends with the same parameters, tokens, results side by side.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>

namespace device {

namespace gf = gatefold;

/// Numbers that are reproducible and look random, in (-size, size).
struct numbers {
    std::uint64_t state;
    explicit numbers(std::uint64_t seed) : state(seed * 0x9E3779B97F4A7C15ull + 1) {}
    double operator()(double size = 1) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        return size * (static_cast<double>(state >> 11) * 0x1p-52 - 1);
    }
};

template <class S>
S stored(double value) {
    return gf::from_accumulate<S>(static_cast<gf::accumulate_t<S>>(value));
}

/// Every parameter filled, biases and controller state included.
template <class L>
gf::weights<L> make_weights(gf::context<gf::cpu>& ctx, std::uint64_t seed) {
    auto w = gf::make_weights<L>(ctx);
    numbers next(seed);
    const auto fill = [&](const char*, auto& slot) {
        using slot_type = std::remove_reference_t<decltype(slot)>;
        using S = typename slot_type::value_type;
        const double columns = static_cast<double>(slot.extent(slot_type::rank - 1));
        const double size = slot_type::rank == 1 ? 0.5 : 1.7 / std::sqrt(columns);
        for (gf::index_t i = 0; i < slot.size(); ++i) slot.data()[i] = stored<S>(next(size));
    };
    gf::for_each_parameter(fill, w);
    gf::for_each_buffer(fill, w);
    return w;
}

/// A layer on both backends, with the same parameters.
template <class L>
struct on_both {
    gf::context<gf::cpu> cpu{2};
    gf::context<gf::cuda> gpu;
    const gf::weights<L> w;
    gf::weights<L, gf::cuda> dw = gf::make_weights<L>(gpu);

    explicit on_both(std::uint64_t seed) : w(make_weights<L>(cpu, seed)) { gf::copy(gpu, dw, w); }
};

/// Rows of tokens on the host and on the device.
template <class T, int H>
struct tokens {
    gf::tensor<T, gf::dyn, H> host;
    gf::device_tensor<T, gf::dyn, H> on_device;

    tokens(gf::context<gf::cpu>& cpu, gf::context<gf::cuda>& gpu, gf::index_t n)
        : host(gf::make_tensor<T, gf::dyn, H>(cpu, n)), on_device(gf::make_tensor<T, gf::dyn, H>(gpu, n)) {}
    void fill(gf::context<gf::cuda>& gpu, std::uint64_t seed) {
        numbers next(seed);
        for (gf::index_t i = 0; i < host.size(); ++i) host.data()[i] = stored<T>(next(1.7));
        gf::copy(gpu, on_device, host);
    }
};

/// The elements of a device tensor or view as numbers.
template <class V>
auto fetch(gf::context<gf::cuda>& gpu, const V& v) {
    using S = typename V::value_type;
    std::vector<S> to(static_cast<std::size_t>(v.size()));
    gf::copy(gpu, gf::view<S, gf::dyn>(to.data(), {v.size()}), gf::device_view<const S, gf::dyn>(v.data(), {v.size()}));
    return to;
}

/// How many elements differ in value or sign; NaNs are equal.
template <class S>
int differences(const S* a, const S* b, gf::index_t n) {
    int count = 0;
    for (gf::index_t i = 0; i < n; ++i) {
        const auto x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
        count += (x == y && std::signbit(x) == std::signbit(y)) || (x != x && y != y) ? 0 : 1;
    }
    return count;
}

/// |a - b| / |b|.
template <class S>
double distance(const S* a, const S* b, gf::index_t n) {
    double difference = 0, length = 0;
    for (gf::index_t i = 0; i < n; ++i) {
        const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
        difference += (x - y) * (x - y);
        length += y * y;
    }
    return length > 0 ? std::sqrt(difference / length) : std::sqrt(difference);
}

// Bits agree with the CPU wing where that fuses multiply and add as every GPU does.
inline constexpr bool same_bits_as_cpu = GATEFOLD_HARDWARE_FMA;

}  // namespace device
