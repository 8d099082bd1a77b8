// Layers of 16-bit floats on the tensor cores: near the CPU wing, and the same bits for every tile size, batch split
// and storage of the weights.
#include "device.hpp"

namespace gf = gatefold;
using namespace device;

namespace {

/// The last rows of a batch on their own must have the bits they had in it.
template <class L, bool Packs>
void compare(std::initializer_list<int> counts, double tolerance) {
    using S = typename L::value_type;
    constexpr int H = L::hidden;
    on_both<L> layer(21);
    auto& [cpu, gpu, w, dw] = layer;
    for (const int n : counts) {
        tokens<S, H> x(cpu, gpu, n), y(cpu, gpu, n);
        x.fill(gpu, 9);
        gf::forward(cpu, w, x.host.view(), y.host.view());
        gf::forward(gpu, dw, x.on_device.view(), y.on_device.view());
        const auto mine = fetch(gpu, y.on_device);
        const double d = distance(mine.data(), y.host.data(), y.host.size());
        BOOST_TEST(d < tolerance, n << " tokens: " << d);

        if constexpr (H * sizeof(S) % 16 == 0) {  // elsewhere a part of the rows is not aligned
            const int last = n < 3 ? n : 3;       // another kernel than that of the whole batch
            const gf::device_tensor<S, gf::dyn, H>& all = x.on_device;
            gf::forward(gpu, dw, gf::device_view<const S, gf::dyn, H>(all.view().slice(n - last, last)),
                        gf::device_view<S, gf::dyn, H>(y.on_device.view().slice(n - last, last)));
            BOOST_TEST(differences(fetch(gpu, y.on_device).data(), mine.data(), n * H) == 0, "split of " << n);
        }
        if constexpr (Packs) {
            const auto packed = gf::pack(gpu, dw);
            gf::forward(gpu, packed, x.on_device.view(), y.on_device.view());
            BOOST_TEST(differences(fetch(gpu, y.on_device).data(), mine.data(), n * H) == 0, "packed, " << n);
        }
    }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(experts)

BOOST_AUTO_TEST_CASE(bf16_packed_and_not_in_every_tile_size) {
    compare<gf::layer<gf::config{.hidden = 64, .ffn = 88, .experts = 5, .top_k = 2}, gf::bf16>, true>({1, 40, 330},
                                                                                                      1e-2);
}

BOOST_AUTO_TEST_CASE(f16_dense_odd_with_biases) {
    compare<gf::layer<gf::config{.hidden = 35, .ffn = 21, .act = gf::activation::relu_squared, .bias = true}, gf::f16>,
            false>({1, 20}, 2e-3);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
