// Copies between pinned memory and the device that the host does not wait for: in stream order, with gaps, in graphs.
#include "device.hpp"

namespace gf = gatefold;
using namespace device;

namespace {

constexpr int columns = 24;
using layer = gf::layer<gf::config{.hidden = columns, .ffn = 8, .experts = 4, .top_k = 2}, float>;
using pinned_rows = gf::tensor<float, gf::dyn, columns>;

void number(pinned_rows& rows, double seed) {
    for (gf::index_t i = 0; i < rows.size(); ++i) rows.data()[i] = static_cast<float>(seed + static_cast<double>(i));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(copies)

BOOST_AUTO_TEST_CASE(there_and_back_in_stream_order) {
    gf::context<gf::cuda> gpu;
    auto out = gf::make_pinned<float, gf::dyn, columns>(7), back = gf::make_pinned<float, gf::dyn, columns>(7);
    auto first = gf::make_tensor<float, gf::dyn, columns>(gpu, 7),
         second = gf::make_tensor<float, gf::dyn, columns>(gpu, 7);
    number(out, 1);
    number(back, -100);
    gf::copy_async(gpu, first, out);
    gf::copy_async(gpu, second, first);
    gf::copy_async(gpu, back, second);
    gpu.synchronize();
    BOOST_TEST(differences(back.data(), out.data(), out.size()) == 0);
}

BOOST_AUTO_TEST_CASE(rows_with_gaps_and_numbers_in_a_row) {
    gf::context<gf::cuda> gpu;
    auto out = gf::make_pinned<float, gf::dyn, columns>(6), back = gf::make_pinned<float, gf::dyn, columns>(6);
    auto on_device = gf::make_tensor<float, gf::dyn, columns>(gpu, 6);
    number(out, 1);
    number(back, -100);
    gf::copy_async(gpu, on_device, out);
    // The second row, the fourth and the sixth, of which the first half.
    const gf::view<float, gf::dyn, gf::dyn> to(back.data(), {3, columns / 2}, columns);
    const gf::device_view<const float, gf::dyn, gf::dyn> from(on_device.data() + columns, {3, columns / 2},
                                                              2 * columns);
    gf::copy_async(gpu, to, from);
    gpu.synchronize();
    for (int r = 0; r < 6; ++r)
        for (int c = 0; c < columns; ++c) {
            const bool copied = r < 3 && c < columns / 2;
            BOOST_REQUIRE(back(r, c) == (copied ? out(2 * r + 1, c) : static_cast<float>(r * columns + c - 100)));
        }
    auto ids = gf::make_pinned<std::int32_t, 5>(), returned = gf::make_pinned<std::int32_t, 5>();
    auto device_ids = gf::make_tensor<std::int32_t, 5>(gpu);
    for (int i = 0; i < 5; ++i) ids(i) = 3 * i;
    gf::copy_async(gpu, device_ids, ids);
    gf::copy_async(gpu, returned, device_ids);
    gpu.synchronize();
    for (int i = 0; i < 5; ++i) BOOST_TEST(returned(i) == 3 * i);
    gf::copy_async(gpu, gf::view<float, gf::dyn>(nullptr, {0}), gf::device_view<const float, gf::dyn>(nullptr, {0}));
}

BOOST_AUTO_TEST_CASE(of_a_layer_in_a_graph_with_its_call) {
    gf::context<gf::cpu> cpu(1);
    cudaStream_t stream = nullptr;
    BOOST_REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    {
        gf::context<gf::cuda> gpu(stream);
        const auto w = make_weights<layer>(cpu, 3);
        auto dw = gf::make_weights<layer>(gpu);
        gf::copy(gpu, dw, w);
        constexpr int n = 5;
        auto host_x = gf::make_pinned<float, gf::dyn, columns>(n), host_y = gf::make_pinned<float, gf::dyn, columns>(n);
        auto expected = gf::make_tensor<float, gf::dyn, columns>(cpu, n);
        auto x = gf::make_tensor<float, gf::dyn, columns>(gpu, n), y = gf::make_tensor<float, gf::dyn, columns>(gpu, n);
        gpu.reserve<layer>(n);
        cudaGraph_t graph = nullptr;
        cudaGraphExec_t exec = nullptr;
        BOOST_REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
        gf::copy_async(gpu, x, host_x);
        gf::forward(gpu, dw, x.view(), y.view());
        gf::copy_async(gpu, host_y, y);
        BOOST_REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
        BOOST_REQUIRE(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
        for (std::uint64_t seed = 1; seed < 4; ++seed) {
            numbers next(seed);
            for (gf::index_t i = 0; i < host_x.size(); ++i) host_x.data()[i] = static_cast<float>(next(1.7));
            BOOST_REQUIRE(cudaGraphLaunch(exec, stream) == cudaSuccess);
            gpu.synchronize();
            gf::forward(cpu, w, host_x.view(), expected.view());
            if (same_bits_as_cpu) BOOST_TEST(differences(host_y.data(), expected.data(), expected.size()) == 0);
            BOOST_TEST(distance(host_y.data(), expected.data(), expected.size()) < 1e-5);
        }
        cudaGraphExecDestroy(exec);
        cudaGraphDestroy(graph);
    }
    cudaStreamDestroy(stream);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
