// The ways of cutting a projection that the wave model chooses among: each gives every row the bits of the others.
#include "device.hpp"

namespace gf = gatefold;
namespace kernels = gf::detail::on_cuda;
using namespace device;
using kernels::arrangement;

namespace {

/// One projection of rows on a single expert.
template <class P>
struct projection {
    using S = typename P::value_type;
    gf::context<gf::cuda>& gpu;
    kernels::grouped_product<S> p;

    std::vector<S> cut(arrangement a) {
        kernels::run_arrangement(gpu, P{}, p, gf::ceil_div(p.rows, kernels::extents_of(a).rows), a, "test");
        return outputs();
    }
    std::vector<S> strips(int warps) {
        using shape = kernels::few_rows_shape;
        const gf::index_t items = gf::ceil_div(p.rows, int{shape::rows}) * gf::index_t{P::shape::strips};
        // Fewer blocks than items: rings run on from one item to the next.
        kernels::launch_persistent(gpu, &kernels::multiply_few<P>, p, gf::ceil_div(items, gf::index_t{3} * warps), 1,
                                   32 * warps, shape::shared_bytes, "test");
        return outputs();
    }
    std::vector<S> outputs() {
        auto all = fetch(gpu, gf::device_view<const S, gf::dyn>(p.out, {p.rows * p.out_stride}));
        gf::detail::check(cudaMemset(p.out, 0, all.size() * sizeof(S)), "test");
        return all;
    }
};

template <class P>
void compare(gf::context<gf::cuda>& gpu, const kernels::grouped_product<typename P::value_type>& p, const char* what) {
    projection<P> run{gpu, p};
    const auto expected = run.cut(arrangement::tiles_of_128x256);
    const auto same = [&](const auto& found, const char* how, int warps) {
        BOOST_TEST(differences(found.data(), expected.data(), static_cast<gf::index_t>(expected.size())) == 0,
                   what << ", " << p.rows << " rows, " << how << ' ' << warps);
    };
    same(run.cut(arrangement::tiles_of_64x64), "64x64", 4);
    for (const int warps : {1, 2, 4}) same(run.strips(warps), "strips", warps);
}

/// Both projections, each cut in every way.
template <class L, bool Packed, class S = typename L::value_type>
void compare_weights(gf::context<gf::cuda>& gpu, const kernels::expert_matrices<S>& matrices,
                     kernels::grouped_product<S> up, kernels::grouped_product<S> down) {
    constexpr int H = L::hidden, F = L::ffn;
    constexpr auto none = gf::activation::identity;
    using first = kernels::projection_of<S, F, H, true, L::c.act, L::c.bias, Packed, H % 8 == 0, false, false>;
    using second = kernels::projection_of<S, H, F, false, none, L::c.bias, Packed, true, false, false>;
    up.weights = matrices.up;
    up.bias = matrices.up_bias;
    compare<first>(gpu, up, Packed ? "up, packed" : "up");
    kernels::run_arrangement(gpu, first{}, up, gf::ceil_div(up.rows, 64), arrangement::tiles_of_64x64, "test");
    down.in = up.out;
    down.weights = matrices.down;
    down.bias = matrices.down_bias;
    compare<second>(gpu, down, Packed ? "down, packed" : "down");
}

/// A dense layer, from packed weights and from the hub's.
template <class L>
void compare_cuts(gf::index_t rows, double tolerance) {
    using S = typename L::value_type;
    constexpr int H = L::hidden, F = L::ffn;
    on_both<L> layer(31);
    auto& [cpu, gpu, w, dw] = layer;
    const auto packed = gf::pack(gpu, dw);
    tokens<S, H> x(cpu, gpu, rows), y(cpu, gpu, rows);
    x.fill(gpu, 32);
    gf::forward(cpu, w, x.host.view(), y.host.view());
    gf::forward(gpu, packed, x.on_device.view(), y.on_device.view());
    const double d = distance(fetch(gpu, y.on_device).data(), y.host.data(), y.host.size());
    BOOST_TEST(d < tolerance, rows << " rows, distance from the CPU: " << d);

    auto activated = gf::make_tensor<S, gf::dyn>(gpu, rows * kernels::row_pitch(F));
    auto returned = gf::make_tensor<S, gf::dyn>(gpu, rows * kernels::row_pitch(H));
    gf::detail::check(cudaMemset(activated.data(), 0, static_cast<std::size_t>(activated.size()) * sizeof(S)), "test");
    gf::detail::check(cudaMemset(returned.data(), 0, static_cast<std::size_t>(returned.size()) * sizeof(S)), "test");
    kernels::grouped_product<S> up, down;
    up.in = x.on_device.data();
    up.in_stride = H;
    up.rows = down.rows = static_cast<int>(rows);
    up.limit = static_cast<typename L::accumulate_type>(L::c.limit);
    up.out = activated.data();
    up.out_stride = down.in_stride = kernels::row_pitch(F);
    down.out = returned.data();
    down.out_stride = kernels::row_pitch(H);
    compare_weights<L, true>(gpu, kernels::routed_matrices(packed), up, down);
    compare_weights<L, false>(gpu, kernels::routed_matrices(dw), up, down);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(cuts)

// 13 strips up, 26 down; depths of 13 and 7 blocks of 16.
BOOST_AUTO_TEST_CASE(gated_with_biases_and_ragged_ends) {
    using layer =
        gf::layer<gf::config{
                      .hidden = 208, .ffn = 104, .act = gf::activation::clamped_swiglu, .limit = 1, .bias = true},
                  gf::bf16>;
    for (const gf::index_t rows : {1, 75}) compare_cuts<layer>(rows, 1e-2);
}
// Whole tiles and whole stages, sums of many stages.
BOOST_AUTO_TEST_CASE(whole_tiles) {
    using layer = gf::layer<gf::config{.hidden = 512, .ffn = 256, .act = gf::activation::relu_squared}, gf::f16>;
    for (const gf::index_t rows : {9, 129}) compare_cuts<layer>(rows, 2e-3);
}
// Rows that begin nowhere in particular.
BOOST_AUTO_TEST_CASE(odd_widths) { compare_cuts<gf::layer<gf::config{.hidden = 75, .ffn = 21}, gf::bf16>>(18, 1e-2); }

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
