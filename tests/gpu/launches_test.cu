// What a call launches, setting by setting: the nodes of its graph.
#include "device.hpp"

using namespace device;

namespace {

/// Nodes of one forward call over n tokens. The layer is deduced: nvcc cannot spell a configuration as an argument.
template <class L>
std::size_t nodes(L, int n, bool training = false) {
    gf::context<gf::cpu> cpu(1);
    cudaStream_t stream = nullptr;
    BOOST_REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    std::size_t count = 0;
    {
        gf::context<gf::cuda> gpu(stream);
        auto w = gf::make_weights<L>(gpu);
        tokens<float, L::hidden> x(cpu, gpu, n), y(cpu, gpu, n);
        x.fill(gpu, 1);
        gpu.template reserve<L>(n);
        gpu.synchronize();
        gf::options<L> o;
        o.training = training;
        cudaGraph_t graph;
        BOOST_REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
        gf::forward(gpu, w, x.on_device.view(), y.on_device.view(), o);
        BOOST_REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
        BOOST_REQUIRE(cudaGraphGetNodes(graph, nullptr, &count) == cudaSuccess);
        cudaGraphDestroy(graph);
    }
    cudaStreamDestroy(stream);
    return count;
}

using gf::capacity_rule;
using gf::config;

constexpr config base{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2};
constexpr auto of(gf::router_config r) { return gf::with(base, &config::router, r); }
constexpr auto of(gf::capacity_config c) { return gf::with(base, &config::capacity, c); }
template <config C>
using layer = gf::layer<C, float>;

constexpr int few = 5, many = 600;  // up to 1024 pairs, and beyond

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(launches)

BOOST_AUTO_TEST_CASE(a_layer_and_its_parts) {
    BOOST_TEST((nodes(layer<base>{}, few) == 4u));
    BOOST_TEST((nodes(layer<base>{}, many) == 5u));
    BOOST_TEST((nodes(layer<config{.hidden = 16, .ffn = 8}>{}, few) == 2u));
    // A shared expert of the routed width rides along, one of another width has launches of its own.
    constexpr auto shared = gf::with(base, &config::shared, gf::shared_config{.ffn = 8, .gate = true});
    BOOST_TEST((nodes(layer<shared>{}, few) == 4u));
    BOOST_TEST((nodes(layer<shared>{}, many) == 5u));
    BOOST_TEST((nodes(layer<gf::with(base, &config::shared, gf::shared_config{.ffn = 16})>{}, few) == 6u));
    BOOST_TEST((nodes(layer<gf::with(base, &config::shared, gf::shared_config{.ffn = 16})>{}, many) == 7u));
    BOOST_TEST((nodes(layer<gf::with(base, &config::free, gf::free_experts{1, 1, 1})>{}, few) == 4u));
    constexpr auto latent = gf::with(base, &config::latent, 8);
    BOOST_TEST((nodes(layer<latent>{}, few) == 6u));
    BOOST_TEST((nodes(layer<gf::with(latent, &config::latent_norm, true)>{}, few) == 7u));
}

BOOST_AUTO_TEST_CASE(capacities) {
    constexpr gf::capacity_config batch{
        .rule = capacity_rule::megatron, .factor = 1, .keeps = gf::priority::probability};
    BOOST_TEST((nodes(layer<of(batch)>{}, few) == 5u));
    BOOST_TEST((nodes(layer<of(batch)>{}, many) == 6u));
    constexpr gf::capacity_config groups{
        .rule = capacity_rule::megatron, .factor = 1, .shared_by = gf::capacity_group::fixed, .group_size = 8};
    BOOST_TEST((nodes(layer<of(groups)>{}, few) == 6u));
    BOOST_TEST((nodes(layer<of(groups)>{}, many) == 7u));
}

BOOST_AUTO_TEST_CASE(routers) {
    using gf::router_config;
    // Noise costs a launch in training alone.
    BOOST_TEST((nodes(layer<of(router_config{.noise = 0.1f})>{}, few) == 4u));
    BOOST_TEST((nodes(layer<of(router_config{.noise = 0.1f})>{}, few, true) == 5u));
    constexpr router_config noisy{.transform = gf::logit_transform::noisy_top_k};
    BOOST_TEST((nodes(layer<of(noisy)>{}, few) == 4u));
    BOOST_TEST((nodes(layer<of(noisy)>{}, few, true) == 5u));
    BOOST_TEST(
        (nodes(layer<of(router_config{.transform = gf::logit_transform::gumbel, .noise = 1})>{}, few, true) == 4u));
    BOOST_TEST((nodes(layer<of(router_config{.transform = gf::logit_transform::residual})>{}, few) == 4u));
    BOOST_TEST((nodes(layer<of(router_config{.input = gf::router_input::rms_norm})>{}, few) == 5u));
    BOOST_TEST(
        (nodes(layer<of(router_config{.logits = gf::projection::two_layer, .projection_width = 4})>{}, few) == 5u));
    BOOST_TEST((nodes(layer<of(router_config{.logits = gf::projection::cosine, .projection_width = 4})>{}, few) == 6u));
    constexpr router_config sinkhorn{.select = gf::selection::sinkhorn, .allow_future = true};
    BOOST_TEST((nodes(layer<of(sinkhorn)>{}, few) == 4u));
    BOOST_TEST((nodes(layer<of(sinkhorn)>{}, few, true) == 7u));
    constexpr router_config choice{.select = gf::selection::expert_choice, .allow_future = true};
    BOOST_TEST((nodes(layer<of(choice)>{}, few) == 7u));
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
