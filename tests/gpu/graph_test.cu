// A call in a CUDA graph, and calls that cannot be carried out.
#include <string>

#include "device.hpp"

namespace gf = gatefold;
using namespace device;

namespace {

using layer = gf::layer<gf::config{.hidden = 32, .ffn = 24, .experts = 6, .top_k = 2}, float>;

struct setup {
    gf::context<gf::cpu> cpu{1};
    cudaStream_t stream = nullptr;
    gf::context<gf::cuda> gpu;
    gf::weights<layer> w;
    gf::weights<layer, gf::cuda> dw;

    setup() : stream(make_stream()), gpu(stream), w(make_weights<layer>(cpu, 3)), dw(gf::make_weights<layer>(gpu)) {
        gf::copy(gpu, dw, w);
    }
    ~setup() { cudaStreamDestroy(stream); }
    static cudaStream_t make_stream() {
        cudaStream_t s = nullptr;
        BOOST_REQUIRE(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking) == cudaSuccess);
        return s;
    }
};

std::string message_of(auto&& call) {
    try {
        call();
    } catch (const gf::argument_error& e) {
        return e.what();
    }
    return "";
}
bool says(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(graph)

BOOST_FIXTURE_TEST_CASE(captured_and_replayed_with_other_tokens, setup) {
    gpu.reserve<layer>(700);
    gpu.fix_workspace();
    for (const int n : {3, 700}) {  // the plan in the router's last block, and in a launch of its own
        tokens<float, 32> x(cpu, gpu, n), y(cpu, gpu, n);
        x.fill(gpu, 1);
        cudaGraph_t graph;
        cudaGraphExec_t exec;
        BOOST_REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
        gf::forward(gpu, dw, x.on_device.view(), y.on_device.view());
        BOOST_REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
        std::size_t nodes = 0;
        BOOST_REQUIRE(cudaGraphGetNodes(graph, nullptr, &nodes) == cudaSuccess);
        BOOST_TEST(nodes == (n * layer::slots <= 1024 ? 4u : 5u));
        BOOST_REQUIRE(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
        for (std::uint64_t seed = 5; seed < 8; ++seed) {
            x.fill(gpu, seed);
            BOOST_REQUIRE(cudaGraphLaunch(exec, stream) == cudaSuccess);
            const auto replayed = fetch(gpu, y.on_device);
            gf::forward(gpu, dw, x.on_device.view(), y.on_device.view());
            BOOST_TEST(differences(fetch(gpu, y.on_device).data(), replayed.data(), n * 32) == 0);
        }
        cudaGraphExecDestroy(exec);
        cudaGraphDestroy(graph);
    }
    BOOST_TEST(gpu.report().tokens == 6 * (3 + 700));
}

BOOST_AUTO_TEST_CASE(what_a_capacity_drops_differs_from_replay_to_replay) {
    using limited = gf::layer<gf::config{.hidden = 32,
                                         .ffn = 24,
                                         .experts = 6,
                                         .top_k = 2,
                                         .capacity = {.rule = gf::capacity_rule::megatron,
                                                      .factor = 0.8f,
                                                      .keeps = gf::priority::probability}},
                              float>;
    gf::context<gf::cpu> cpu(1);
    cudaStream_t stream = setup::make_stream();
    {
        gf::context<gf::cuda> gpu(stream);
        const auto w = make_weights<limited>(cpu, 3);
        auto dw = gf::make_weights<limited>(gpu);
        gf::copy(gpu, dw, w);
        constexpr int n = 90;
        tokens<float, 32> x(cpu, gpu, n), y(cpu, gpu, n);
        x.fill(gpu, 1);
        gpu.reserve<limited>(n);
        gpu.fix_workspace();
        cudaGraph_t graph;
        cudaGraphExec_t exec;
        BOOST_REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
        gf::forward(gpu, dw, x.on_device.view(), y.on_device.view());
        BOOST_REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
        BOOST_REQUIRE(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
        for (std::uint64_t seed = 5; seed < 8; ++seed) {
            x.fill(gpu, seed);
            gpu.clear_report();
            cpu.clear_report();
            BOOST_REQUIRE(cudaGraphLaunch(exec, stream) == cudaSuccess);
            gf::forward(cpu, w, x.host.view(), y.host.view());
            BOOST_TEST((gpu.report() == cpu.report()));
            BOOST_TEST(cpu.report().dropped > 0);
            if (same_bits_as_cpu) BOOST_TEST(differences(fetch(gpu, y.on_device).data(), y.host.data(), n * 32) == 0);
        }
        cudaGraphExecDestroy(exec);
        cudaGraphDestroy(graph);
    }
    cudaStreamDestroy(stream);
}

BOOST_FIXTURE_TEST_CASE(a_capture_that_would_allocate_is_refused, setup) {
    tokens<float, 32> x(cpu, gpu, 40), y(cpu, gpu, 40);
    x.fill(gpu, 1);
    cudaGraph_t graph;
    BOOST_REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    const auto text = message_of([&] { gf::forward(gpu, dw, x.on_device.view(), y.on_device.view()); });
    BOOST_REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    cudaGraphDestroy(graph);
    BOOST_TEST(says(text, "before the capture begins"), text);
}

BOOST_FIXTURE_TEST_CASE(wrong_calls_name_what_is_wrong_and_write_nothing, setup) {
    tokens<float, 32> x(cpu, gpu, 4), y(cpu, gpu, 4);
    x.fill(gpu, 1);
    y.fill(gpu, 2);
    const gf::device_view<float, gf::dyn, 32> host_memory(y.host.data(), {4, 32});
    BOOST_TEST(says(message_of([&] { gf::forward(gpu, dw, x.on_device.view(), host_memory); }), "y: expected device"));
    gpu.reserve<layer>(3);
    BOOST_TEST(
        says(message_of([&] { gf::forward(gpu, dw, x.on_device.view(), y.on_device.view()); }), "the 3 rows reserved"));
    gf::context<gf::cuda> other(stream);
    other.fix_workspace();
    BOOST_TEST(says(message_of([&] { gf::forward(other, dw, x.on_device.view(), y.on_device.view()); }),
                    "at most what was reserved"));
    BOOST_TEST(differences(fetch(gpu, y.on_device).data(), y.host.data(), y.host.size()) == 0);
    BOOST_CHECK_THROW(gf::context<gf::cuda>(gf::cuda_context_options{.device = 99}), gf::cuda_error);
}

BOOST_AUTO_TEST_CASE(balanced_assignment_infers_and_does_not_train) {
    using balanced =
        gf::layer<gf::config{
                      .hidden = 16,
                      .ffn = 8,
                      .experts = 4,
                      .router = {.select = gf::selection::balanced, .from = gf::score::sigmoid, .allow_future = true}},
                  float>;
    gf::context<gf::cpu> cpu(1);
    gf::context<gf::cuda> gpu;
    const auto w = make_weights<balanced>(cpu, 3);
    auto dw = gf::make_weights<balanced>(gpu);
    gf::copy(gpu, dw, w);
    tokens<float, 16> x(cpu, gpu, 30), y(cpu, gpu, 30);
    x.fill(gpu, 1);
    gf::forward(cpu, w, x.host.view(), y.host.view());
    gf::forward(gpu, dw, x.on_device.view(), y.on_device.view());
    const auto mine = fetch(gpu, y.on_device);
    if (same_bits_as_cpu) BOOST_TEST(differences(mine.data(), y.host.data(), y.host.size()) == 0);
    gf::options<balanced> o;
    o.training = true;
    BOOST_TEST(says(message_of([&] { gf::forward(gpu, dw, x.on_device.view(), y.on_device.view(), o); }),
                    "false on CUDA for balanced assignment"));
    BOOST_TEST(differences(fetch(gpu, y.on_device).data(), mine.data(), y.host.size()) == 0);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
