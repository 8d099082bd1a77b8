// Sums of many products on the tensor cores, over numbers of very different size: every kernel and every place of a row
// in a tile must add them in the same way. The emulator adds in one order anyway; on a device this is a finding.
#include <algorithm>

#include "device.hpp"

namespace gf = gatefold;
using namespace device;

namespace {

/// Exponents spread over 2^[-spread, 0].
template <class S>
void spread_out(S* to, gf::index_t n, std::uint64_t seed, int spread) {
    numbers next(seed), exponent(seed + 1000);
    for (gf::index_t i = 0; i < n; ++i)
        to[i] = stored<S>(std::ldexp(next(), -static_cast<int>((exponent() + 1) * spread / 2)));
}

/// The rows of a batch computed together, and again in calls of `sizes` rows.
template <class L>
void compare(int spread, gf::index_t all, std::initializer_list<gf::index_t> sizes) {
    using S = typename L::value_type;
    constexpr int H = L::hidden;
    gf::context<gf::cpu> cpu(1);
    gf::context<gf::cuda> gpu;
    auto w = make_weights<L>(cpu, 5);
    spread_out(w.gate_up.data(), w.gate_up.size(), 11, spread);
    spread_out(w.down.data(), w.down.size(), 12, spread);
    auto dw = gf::make_weights<L>(gpu);
    gf::copy(gpu, dw, w);
    const auto packed = gf::pack(gpu, dw);
    tokens<S, H> x(cpu, gpu, all), y(cpu, gpu, all);
    spread_out(x.host.data(), x.host.size(), 13, spread);
    gf::copy(gpu, x.on_device, x.host);
    const gf::device_tensor<S, gf::dyn, H>& in = x.on_device;
    gf::forward(gpu, packed, in.view(), y.on_device.view());
    const auto together = fetch(gpu, y.on_device);
    for (const gf::index_t size : sizes) {
        for (gf::index_t first = 0; first < all; first += size) {
            const gf::index_t n = (std::min)(size, all - first);
            gf::forward(gpu, packed, gf::device_view<const S, gf::dyn, H>(in.view().slice(first, n)),
                        gf::device_view<S, gf::dyn, H>(y.on_device.view().slice(first, n)));
        }
        BOOST_TEST(differences(fetch(gpu, y.on_device).data(), together.data(), all * H) == 0,
                   all << " rows in calls of " << size);
    }
    const gf::index_t some = (std::min)(all, gf::index_t{16});
    gf::forward(cpu, w, x.host.view().slice(0, some), y.host.view().slice(0, some));
    const double d = distance(together.data(), y.host.data(), some * H);
    BOOST_TEST(d < (sizeof(S) == 2 && std::is_same_v<S, gf::bf16> ? 1e-2 : 2e-3), "distance from the CPU: " << d);
}

constexpr gf::config shape{.hidden = 1040, .ffn = 24, .experts = 2, .top_k = 1};

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(arrangements)

// 270 rows: tiles of 128; 40: of 64; 3: of 8.
BOOST_AUTO_TEST_CASE(bf16_of_even_and_of_uneven_size) {
    compare<gf::layer<shape, gf::bf16>>(0, 270, {40, 3});
    compare<gf::layer<shape, gf::bf16>>(24, 270, {40});
}
BOOST_AUTO_TEST_CASE(f16_of_uneven_size) { compare<gf::layer<shape, gf::f16>>(8, 270, {40}); }

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
