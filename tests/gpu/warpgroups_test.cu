// The products of warpgroups (Hopper): right numbers wherever they can run at all, and chosen for calls only where they
// have the bits of the other kernels.
#include "device.hpp"

namespace gf = gatefold;
using namespace device;

namespace {

/// Lets calls use them, whatever products_agree() found, until the end of the scope.
template <class S>
class forced {
public:
    explicit forced(int device) : known_(gf::detail::on_cuda::products_known<S>()[device]), before_(known_) {
        known_ = 1;
    }
    ~forced() { known_ = before_; }
    forced(const forced&) = delete;
    forced& operator=(const forced&) = delete;

private:
    signed char& known_;
    signed char before_;
};

/// Devices of compute capability 9.0 run sm_90a.
bool has_warpgroups(const gf::context<gf::cuda>& gpu) {
    int major = 0, minor = 0;
    BOOST_REQUIRE(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, gpu.device()) == cudaSuccess);
    BOOST_REQUIRE(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, gpu.device()) == cudaSuccess);
    return major == 9 && minor == 0;
}

template <class L>
void compare(gf::index_t rows, double tolerance) {
    using S = typename L::value_type;
    constexpr int H = L::hidden;
    on_both<L> layer(21);
    auto& [cpu, gpu, w, dw] = layer;
    if (!has_warpgroups(gpu)) return;
    const auto packed = gf::pack(gpu, dw);
    tokens<S, H> x(cpu, gpu, rows), y(cpu, gpu, rows);
    x.fill(gpu, 9);
    gf::forward(cpu, w, x.host.view(), y.host.view());
    gf::forward(gpu, packed, x.on_device.view(), y.on_device.view());
    const auto as_found = fetch(gpu, y.on_device);
    const bool agree = gf::detail::on_cuda::products_agree<S>(gpu);
    const forced<S> now(gpu.device());
    gf::tape<L, gf::cuda> tape(gpu, rows);
    gf::forward(gpu, packed, gf::batch<L, gf::cuda>{.x = x.on_device.view()}, y.on_device.view(), tape);
    const auto mine = fetch(gpu, y.on_device);
    const double d = distance(mine.data(), y.host.data(), y.host.size());
    BOOST_TEST(d < tolerance, rows << " rows: " << d);
    if (agree) BOOST_TEST(differences(mine.data(), as_found.data(), rows * H) == 0);
    gf::forward(gpu, dw, x.on_device.view(), y.on_device.view());
    BOOST_TEST(differences(fetch(gpu, y.on_device).data(), mine.data(), rows * H) == 0, "from the hub's layout");
}

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(warpgroups)

BOOST_AUTO_TEST_CASE(gated_with_biases_a_ragged_end_and_one_expert_for_all) {
    compare<
        gf::layer<gf::config{.hidden = 208,
                             .ffn = 88,
                             .experts = 3,
                             .top_k = 2,
                             .act = gf::activation::clamped_swiglu,
                             .limit = 1,
                             .bias = true,
                             .shared = {.ffn = 88, .act = gf::activation::clamped_swiglu, .limit = 1, .bias = true}},
                  gf::bf16>>(230, 1e-2);
}
BOOST_AUTO_TEST_CASE(wider_than_a_tile) {
    compare<gf::layer<
        gf::config{.hidden = 320, .ffn = 144, .experts = 2, .top_k = 1, .act = gf::activation::relu_squared}, gf::f16>>(
        150, 2e-3);
}
// Without a list of tiles, as dense layers of many rows are multiplied.
BOOST_AUTO_TEST_CASE(a_single_expert) {
    namespace kernels = gf::detail::on_cuda;
    using L = gf::layer<gf::config{.hidden = 320, .ffn = 144, .act = gf::activation::relu_squared}, gf::f16>;
    using P = kernels::projection_of<gf::f16, 144, 320, true, L::c.act, false, false, true, false, false>;
    constexpr int rows = 150;
    on_both<L> layer(22);
    auto& [cpu, gpu, w, dw] = layer;
    if (!has_warpgroups(gpu)) return;
    tokens<gf::f16, 320> x(cpu, gpu, rows);
    x.fill(gpu, 23);
    auto out = gf::make_tensor<gf::f16, gf::dyn, 144>(gpu, rows);
    kernels::grouped_product<gf::f16> p;
    p.in = x.on_device.data();
    p.in_stride = 320;
    p.weights = dw.up.data();
    p.out = out.data();
    p.out_stride = 144;
    p.rows = rows;
    kernels::run_arrangement(gpu, P{}, p, gf::ceil_div(rows, 64), kernels::arrangement::tiles_of_64x64, "test");
    const auto expected = fetch(gpu, out);
    const bool agree = kernels::products_agree<gf::f16>(gpu);
    const forced<gf::f16> now(gpu.device());
    kernels::run_arrangement(gpu, P{}, p, gf::ceil_div(rows, 128), kernels::arrangement::tiles_of_128x256, "test");
    const auto mine = fetch(gpu, out);
    BOOST_TEST(distance(mine.data(), expected.data(), out.size()) < 2e-3);
    if (agree) BOOST_TEST(differences(mine.data(), expected.data(), out.size()) == 0);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
