// Sums over experts in whatever order they come: near the ordered call, one launch fewer, the same routing.
#include <gatefold/cuda/unordered.cuh>

#include "device.hpp"

using namespace device;

namespace {

/// Largest relative distance that rounding explains: sums of float in another order, over outputs that ordered calls
/// round to 16 bits first.
template <class T>
constexpr double tolerance = sizeof(T) == 2   ? (std::is_same_v<T, gf::bf16> ? 8e-3 : 1e-3)
                             : sizeof(T) == 4 ? 1e-6
                                              : 1e-14;

template <class L>
void compare(L, std::initializer_list<int> counts, bool accumulate = false) {
    using T = typename L::value_type;
    constexpr int H = L::hidden;
    on_both<L> layer(17);
    auto& [cpu, gpu, w, dw] = layer;
    const auto packed = gf::pack(gpu, dw);
    gf::options<L> o;
    o.accumulate = accumulate;
    for (const int n : counts) {
        tokens<T, H> x(cpu, gpu, n), y(cpu, gpu, n), before(cpu, gpu, n);
        x.fill(gpu, 3);
        before.fill(gpu, 5);
        gf::copy(gpu, y.on_device, before.host);
        gpu.clear_report();
        gf::forward(gpu, dw, x.on_device.view(), y.on_device.view(), o);
        const auto report = gpu.report();
        const auto ordered = fetch(gpu, y.on_device);
        const auto near = [&](const auto& weights, const char* form) {
            gf::copy(gpu, y.on_device, before.host);
            gpu.clear_report();
            gf::forward(gpu, gf::unordered, weights, x.on_device.view(), y.on_device.view(), o);
            BOOST_TEST((gpu.report() == report), form << ", " << n << " tokens: other routing");
            const double d = distance(fetch(gpu, y.on_device).data(), ordered.data(), y.host.size());
            BOOST_TEST(d < tolerance<T>, form << ", " << n << " tokens: " << d);
        };
        near(dw, "weights");
        near(packed, "packed");
        near(packed, "again");  // sums and counts of the call before are gone
    }
}

/// Nodes of one call's graph, which is replayed twice.
template <class L>
std::size_t launches(L, int n) {
    using T = typename L::value_type;
    gf::context<gf::cpu> cpu(1);
    cudaStream_t stream = nullptr;
    BOOST_REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    std::size_t count = 0;
    {
        gf::context<gf::cuda> gpu(stream);
        const auto w = make_weights<L>(cpu, 17);
        auto dw = gf::make_weights<L>(gpu);
        gf::copy(gpu, dw, w);
        tokens<T, L::hidden> x(cpu, gpu, n), y(cpu, gpu, n), expected(cpu, gpu, n);
        gf::reserve<L>(gpu, gf::unordered, n);
        gpu.fix_workspace();
        cudaGraph_t graph;
        cudaGraphExec_t exec;
        BOOST_REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
        gf::forward(gpu, gf::unordered, dw, x.on_device.view(), y.on_device.view());
        BOOST_REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
        BOOST_REQUIRE(cudaGraphGetNodes(graph, nullptr, &count) == cudaSuccess);
        BOOST_REQUIRE(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
        for (std::uint64_t seed = 1; seed < 3; ++seed) {
            x.fill(gpu, seed);
            gf::forward(gpu, dw, x.on_device.view(), expected.on_device.view());
            const auto ordered = fetch(gpu, expected.on_device);
            BOOST_REQUIRE(cudaGraphLaunch(exec, stream) == cudaSuccess);
            BOOST_TEST(distance(fetch(gpu, y.on_device).data(), ordered.data(), y.host.size()) < tolerance<T>);
        }
        cudaGraphExecDestroy(exec);
        cudaGraphDestroy(graph);
    }
    cudaStreamDestroy(stream);
    return count;
}

using gf::config;

constexpr config plain{.hidden = 72, .ffn = 40, .experts = 6, .top_k = 2, .shared = {.ffn = 40}};
constexpr config limited{.hidden = 40,
                         .ffn = 24,
                         .experts = 5,
                         .top_k = 2,
                         .router = gf::routers::mixtral,
                         .capacity = {.rule = gf::capacity_rule::megatron, .factor = 0.6f}};

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(unordered)

BOOST_AUTO_TEST_CASE(float_and_double) {
    compare(gf::layer<config{.hidden = 37, .ffn = 21, .experts = 6, .top_k = 3, .bias = true}, float>{}, {1, 60, 400});
    compare(gf::layer<limited, float>{}, {50}, true);
    compare(gf::layer<plain, float>{}, {50});
    BOOST_TEST(launches(gf::layer<plain, float>{}, 5) == 3u);
    compare(gf::layer<config{.hidden = 20,
                             .ffn = 24,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.scale = 1.5f, .scaled = gf::scale_at::output},
                             .shared = {.ffn = 8}},
                      double>{},
            {33});
}

BOOST_AUTO_TEST_CASE(sixteen_bits_on_strips_and_both_tiles) {
    compare(gf::layer<plain, gf::bf16>{}, {1, 5, 40, 160});
    // Widths that are no multiple of a strip, of half a strip, of a pair; weights on inputs; a shared expert.
    compare(gf::layer<config{.hidden = 37,
                             .ffn = 20,
                             .experts = 4,
                             .top_k = 3,
                             .bias = true,
                             .router = {.acts_on = gf::weight_at::input}},
                      gf::f16>{},
            {2, 90}, true);
    compare(gf::layer<config{.hidden = 312,
                             .ffn = 24,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.scale = 2.5f, .scaled = gf::scale_at::output},
                             .shared = {.ffn = 16}},
                      gf::bf16>{},
            {3, 130});
}

BOOST_AUTO_TEST_CASE(sixteen_bits_with_dropped_pairs) {
    compare(gf::layer<limited, gf::bf16>{}, {7, 100});
    compare(gf::layer<limited, gf::bf16>{}, {50}, true);
}

BOOST_AUTO_TEST_CASE(one_launch_fewer) {
    BOOST_TEST(launches(gf::layer<plain, gf::bf16>{}, 5) == 3u);
    BOOST_TEST(launches(gf::layer<plain, gf::bf16>{}, 600) == 4u);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
