// Calls that cannot be carried out: each ends in an exception that names what is wrong, and writes nothing.
#include <string>

#include "device.hpp"

namespace gf = gatefold;
using namespace device;

namespace {

constexpr int hidden = 16, count = 6;
using layer = gf::layer<gf::config{.hidden = hidden, .ffn = 8, .experts = 4, .top_k = 2}, gf::bf16>;
using rows = tokens<gf::bf16, hidden>;
using device_rows = gf::device_view<gf::bf16, gf::dyn, hidden>;
using std::bad_alloc;  // `std` within the suite cuda is cuda::std
using const_device_rows = gf::device_view<const gf::bf16, gf::dyn, hidden>;
using gf::index_t;

__global__ void nothing() {}

struct setup {
    gf::context<gf::cpu> cpu{1};
    cudaStream_t stream = make_stream();
    gf::context<gf::cuda> gpu{stream};
    gf::weights<layer> w = make_weights<layer>(cpu, 3);
    gf::weights<layer, gf::cuda> dw = gf::make_weights<layer>(gpu);
    rows x{cpu, gpu, 6}, y{cpu, gpu, 6};

    setup() {
        gf::copy(gpu, dw, w);
        x.fill(gpu, 1);
        y.fill(gpu, 2);
    }
    ~setup() { cudaStreamDestroy(stream); }
    static cudaStream_t make_stream() {
        cudaStream_t s = nullptr;
        BOOST_REQUIRE(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking) == cudaSuccess);
        return s;
    }

    /// The call throws an E that names all of `parts`; y is as it was.
    template <class E = gf::argument_error, class Call>
    void refuses(std::initializer_list<const char*> parts, Call call) {
        std::string text;
        try {
            call();
        } catch (const E& e) {
            text = e.what();
        }
        BOOST_TEST(!text.empty(), "nothing was thrown");
        for (const char* part : parts) BOOST_TEST(text.find(part) != std::string::npos, part << " is not in: " << text);
        BOOST_TEST(differences(fetch(gpu, y.on_device).data(), y.host.data(), y.host.size()) == 0, "y was written");
    }
};

/// The stages' memory, filled by a call of each.
struct stages : setup {
    gf::device_tensor<std::int32_t, gf::dyn, layer::slots> ids =
        gf::make_tensor<std::int32_t, gf::dyn, layer::slots>(gpu, count);
    gf::device_tensor<float, gf::dyn, layer::slots> weights = gf::make_tensor<float, gf::dyn, layer::slots>(gpu, count);
    gf::device_tensor<float, gf::dyn, layer::choices> logits =
        gf::make_tensor<float, gf::dyn, layer::choices>(gpu, count);
    gf::device_tensor<gf::bf16, gf::dyn, hidden> z =
        gf::make_tensor<gf::bf16, gf::dyn, hidden>(gpu, count* layer::slots);
    gf::plan<layer, gf::cuda> memory{gpu, count};
    gf::routing_view<layer, gf::cuda> routing{ids.view(), weights.view(), logits.view()};
    gf::plan_view<gf::cuda> plan = memory.view(count);
    gf::batch<layer, gf::cuda> in{.x = x.on_device.view()};

    stages() {
        gf::route(gpu, dw, in, routing);
        gf::make_plan<layer>(gpu, ids.view(), plan);
        gf::experts(gpu, dw, in, plan, routing, z.view());
        gpu.synchronize();
    }
    void combine() { gf::combine(gpu, dw, in, plan, routing, z.view(), y.on_device.view()); }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(misuse)

BOOST_FIXTURE_TEST_CASE(host_memory_in_a_device_view, setup) {
    const const_device_rows host_x(x.host.data(), {6, hidden});
    const device_rows host_y(y.host.data(), {6, hidden});
    refuses({"forward", "x", "device memory"}, [&] { gf::forward(gpu, dw, host_x, y.on_device.view()); });
    refuses({"forward", "y", "device memory"}, [&] { gf::forward(gpu, dw, x.on_device.view(), host_y); });
    const const_device_rows nothing(nullptr, {6, hidden});
    refuses({"forward", "x"}, [&] { gf::forward(gpu, dw, nothing, y.on_device.view()); });
}

BOOST_FIXTURE_TEST_CASE(pinned_host_memory_in_a_device_view, setup) {
    auto pinned = gf::tensor<gf::bf16, gf::dyn, hidden>({6, hidden}, gf::pinned_allocator);
    const device_rows host_y(pinned.data(), {6, hidden});
    refuses({"forward", "y", "device memory"}, [&] { gf::forward(gpu, dw, x.on_device.view(), host_y); });
}

BOOST_FIXTURE_TEST_CASE(host_memory_in_what_is_known_of_the_tokens, setup) {
    const auto mask = gf::make_tensor<std::uint8_t, gf::dyn>(cpu, 6);
    gf::batch<layer, gf::cuda> in{.x = x.on_device.view(), .router_x = const_device_rows(x.host.data(), {6, hidden})};
    refuses({"forward", "router_x", "device memory"}, [&] { gf::forward(gpu, dw, in, y.on_device.view()); });
    in = {.x = x.on_device.view(), .mask = gf::device_view<const std::uint8_t, gf::dyn>(mask.data(), {6})};
    refuses({"forward", "mask", "device memory"}, [&] { gf::forward(gpu, dw, in, y.on_device.view()); });
    auto chosen = gf::make_tensor<std::int32_t, gf::dyn, layer::slots>(gpu, 5);
    in = {.x = x.on_device.view(), .chosen = chosen.view()};
    refuses({"forward", "chosen", "6 rows", "5"}, [&] { gf::forward(gpu, dw, in, y.on_device.view()); });
}

BOOST_FIXTURE_TEST_CASE(host_memory_in_borrowed_weights, setup) {
    gf::weights_view<layer, gf::cuda> borrowed(dw);
    const gf::weights_view<layer> mapped(w);
    gf::copy(gpu, dw, mapped);
    gf::forward(gpu, borrowed, x.on_device.view(), y.on_device.view());
    gf::forward(gpu, gf::pack(gpu, borrowed), x.on_device.view(), y.on_device.view());
    gpu.synchronize();
    gf::copy(gpu, y.on_device, y.host);
    borrowed.down = {w.down.data(), {layer::experts, layer::width, layer::ffn}};
    refuses({"forward", "down", "device memory"},
            [&] { gf::forward(gpu, borrowed, x.on_device.view(), y.on_device.view()); });
    refuses({"pack", "device memory"}, [&] { gf::pack(gpu, borrowed); });
}

BOOST_FIXTURE_TEST_CASE(experts_packed_from_host_memory, setup) {
    auto packed = gf::make_packed<layer>(gpu);
    const gf::device_view<const gf::bf16, gf::dyn, gf::dyn> gate_up(w.gate_up.data(), {layer::gate_up_rows, hidden});
    const gf::device_view<const gf::bf16, gf::dyn, gf::dyn> down(dw.down.data(), {hidden, layer::ffn});
    refuses({"pack_expert", "gate_up", "device memory"}, [&] { gf::pack_expert(gpu, packed, 0, gate_up, down); });
}

BOOST_FIXTURE_TEST_CASE(weights_without_memory, setup) {
    const gf::weights<layer, gf::cuda> none;
    refuses({"forward", "memory for the parameter"},
            [&] { gf::forward(gpu, none, x.on_device.view(), y.on_device.view()); });
    gf::packed<layer, gf::cuda> half = gf::make_packed<layer>(gpu);
    half.matrices = {};
    refuses({"forward", "device memory"}, [&] { gf::forward(gpu, half, x.on_device.view(), y.on_device.view()); });
}

BOOST_FIXTURE_TEST_CASE(stages_with_host_memory, stages) {
    auto host = gf::make_tensor<std::int32_t, gf::dyn>(cpu, 64);
    host.set_zero();
    const auto host_weights = gf::make_tensor<float, gf::dyn>(cpu, 64);
    const gf::routing_view<layer, gf::cuda> sound = routing;
    const gf::plan_view<gf::cuda> sound_plan = plan;
    const auto ids_on_host = gf::device_view<std::int32_t, gf::dyn, layer::slots>(host.data(), {count, layer::slots});
    routing.ids = ids_on_host;
    refuses({"route", "ids", "device memory"}, [&] { gf::route(gpu, dw, in, routing); });
    refuses({"make_plan", "ids", "device memory"}, [&] { gf::make_plan<layer>(gpu, ids_on_host, plan); });
    refuses({"combine", "ids", "device memory"}, [&] { combine(); });
    routing = sound;
    routing.weights = {host_weights.data(), {count, layer::slots}};
    refuses({"experts", "weights", "device memory"}, [&] { gf::experts(gpu, dw, in, plan, routing, z.view()); });
    refuses({"combine", "weights", "device memory"}, [&] { combine(); });
    routing = sound;
    plan.place = {host.data(), {count * layer::slots}};
    refuses({"make_plan", "place", "device memory"}, [&] { gf::make_plan<layer>(gpu, ids.view(), plan); });
    refuses({"combine", "place", "device memory"}, [&] { combine(); });
    plan = sound_plan;
    plan.offsets = {host.data(), {layer::choices + 1}};
    refuses({"experts", "offsets", "device memory"}, [&] { gf::experts(gpu, dw, in, plan, routing, z.view()); });
    plan = sound_plan;
    for (index_t i = 0; i < host.size(); ++i) BOOST_REQUIRE(host(i) == 0);
    combine();
    gpu.synchronize();
}

BOOST_FIXTURE_TEST_CASE(stages_that_would_allocate_while_captured, stages) {
    gf::context<gf::cuda> fresh(stream);
    const auto captured = [&](auto call) {
        cudaGraph_t graph = nullptr;
        BOOST_REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
        try {
            call();
        } catch (...) {
            BOOST_TEST(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
            cudaGraphDestroy(graph);
            throw;
        }
        BOOST_TEST(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
        cudaGraphDestroy(graph);
    };
    refuses({"workspace", "before the capture"},
            [&] { captured([&] { gf::experts(fresh, dw, in, plan, routing, z.view()); }); });
    refuses({"workspace", "before the capture"},
            [&] { captured([&] { gf::combine(fresh, dw, in, plan, routing, z.view(), y.on_device.view()); }); });
    // What would wait for the stream does not end the capture either.
    refuses({"report", "not being captured"}, [&] { captured([&] { (void)gpu.report(); }); });
    refuses({"synchronize", "not being captured"}, [&] { captured([&] { gpu.synchronize(); }); });
    refuses({"copy", "copy_async"}, [&] { captured([&] { gf::copy(gpu, x.on_device, x.host); }); });
    captured([&] { gpu.clear_report(); });
}

BOOST_FIXTURE_TEST_CASE(copies_that_do_not_fit, setup) {
    rows shorter(cpu, gpu, 5);
    refuses({"copy", "from", "6", "5"}, [&] { gf::copy(gpu, y.on_device, shorter.host); });
    refuses({"copy_async", "from", "6", "5"}, [&] { gf::copy_async(gpu, y.on_device, shorter.on_device); });
    const device_rows host_in_disguise(x.host.data(), {6, hidden}), nowhere(nullptr, {6, hidden});
    const gf::view<gf::bf16, gf::dyn, hidden> device_in_disguise(y.on_device.data(), {6, hidden});
    refuses({"copy", "to", "device memory"}, [&] { gf::copy(gpu, host_in_disguise, y.host.view()); });
    refuses({"copy", "from", "device memory"}, [&] { gf::copy(gpu, y.on_device.view(), host_in_disguise); });
    refuses({"copy", "to", "host memory"}, [&] { gf::copy(gpu, device_in_disguise, x.on_device.view()); });
    refuses({"copy", "from", "null"}, [&] { gf::copy(gpu, y.on_device.view(), nowhere); });
    refuses({"copy_async", "from", "pinned", "pageable"}, [&] { gf::copy_async(gpu, y.on_device, x.host); });
    refuses({"copy_async", "to", "pinned", "pageable"}, [&] { gf::copy_async(gpu, x.host, x.on_device); });
}

BOOST_FIXTURE_TEST_CASE(a_context_that_was_moved_from, setup) {
    gf::context<gf::cuda> other(stream);
    gf::forward(other, dw, x.on_device.view(), y.on_device.view());
    other.synchronize();
    gf::copy(gpu, y.on_device, y.host);
    gf::context<gf::cuda> heir(std::move(other));
    refuses({"workspace", "moved from"}, [&] { gf::forward(other, dw, x.on_device.view(), y.on_device.view()); });
    refuses({"report", "moved from"}, [&] { (void)other.report(); });
    refuses({"workspace", "moved from"}, [&] { other.reserve<layer>(6); });
    BOOST_TEST(heir.report().tokens == 6);
    gf::forward(heir, dw, x.on_device.view(), y.on_device.view());
    heir.synchronize();
}

BOOST_FIXTURE_TEST_CASE(an_error_that_somebody_else_left, setup) {
    nothing<<<1, 4096>>>();  // more threads than a block can have; nobody asks
    refuses<gf::cuda_error>({"forward", "an earlier CUDA call", "invalid"},
                            [&] { gf::forward(gpu, dw, x.on_device.view(), y.on_device.view()); });
    BOOST_TEST(cudaPeekAtLastError() == cudaSuccess);  // it was said once
    nothing<<<1, 4096>>>();
    refuses<gf::cuda_error>({"copy", "an earlier CUDA call"}, [&] {
        try {
            gf::copy(gpu, y.on_device, x.host);
        } catch (...) {
            BOOST_TEST(cudaPeekAtLastError() == cudaSuccess);
            throw;
        }
    });
    gf::forward(gpu, dw, x.on_device.view(), y.on_device.view());
    gpu.synchronize();
}

BOOST_FIXTURE_TEST_CASE(a_workspace_of_host_memory, setup) {
    refuses({"context", "memory", "device memory"},
            [] { gf::context<gf::cuda> other(gf::cuda_context_options{.memory = gf::pinned_allocator}); });
}

BOOST_AUTO_TEST_CASE(calls_that_wait_for_their_kernels_can_be_captured_too) {
    setup s;
    gf::context<gf::cuda> careful(gf::cuda_context_options{.stream = s.stream, .errors = gf::kernel_errors::immediate});
    careful.reserve<layer>(6);
    gf::forward(careful, s.dw, s.x.on_device.view(), s.y.on_device.view());
    BOOST_TEST(cudaStreamQuery(s.stream) == cudaSuccess);  // nothing is left to do
    const auto called = fetch(s.gpu, s.y.on_device);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    BOOST_REQUIRE(cudaStreamBeginCapture(s.stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    gf::forward(careful, s.dw, s.x.on_device.view(), s.y.on_device.view());
    BOOST_REQUIRE(cudaStreamEndCapture(s.stream, &graph) == cudaSuccess);
    BOOST_REQUIRE(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
    gf::copy(s.gpu, s.y.on_device, s.y.host);
    BOOST_REQUIRE(cudaGraphLaunch(exec, s.stream) == cudaSuccess);
    BOOST_TEST(differences(fetch(s.gpu, s.y.on_device).data(), called.data(), s.y.host.size()) == 0);
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
}

BOOST_FIXTURE_TEST_CASE(rows_that_do_not_belong_together, setup) {
    rows shorter(cpu, gpu, 5);
    refuses({"forward", "y"}, [&] {
        gf::forward(gpu, dw, x.on_device.view(), device_rows(y.on_device.data(), {5, hidden}));
    });
    refuses({"forward", "x", "16 bytes"}, [&] {
        gf::forward(gpu, dw, const_device_rows(x.on_device.data(), {3, hidden}, hidden + 1),
                    device_rows(y.on_device.data(), {3, hidden}));
    });
}

BOOST_FIXTURE_TEST_CASE(more_tokens_than_reserved, setup) {
    gpu.reserve<layer>(5);
    refuses({"forward", "5"}, [&] { gf::forward(gpu, dw, x.on_device.view(), y.on_device.view()); });
}

BOOST_FIXTURE_TEST_CASE(a_workspace_that_may_not_grow, setup) {
    gf::context<gf::cuda> other(stream);
    other.fix_workspace();
    refuses({"workspace", "reserved"}, [&] { gf::forward(other, dw, x.on_device.view(), y.on_device.view()); });
    refuses({"workspace"}, [&] { other.reserve<layer>(6); });
}

BOOST_FIXTURE_TEST_CASE(a_first_call_while_the_stream_is_captured, setup) {
    cudaGraph_t graph = nullptr;
    refuses({"workspace", "before the capture"}, [&] {
        BOOST_REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
        try {
            gf::forward(gpu, dw, x.on_device.view(), y.on_device.view());
        } catch (...) {
            BOOST_TEST(cudaStreamEndCapture(stream, &graph) == cudaSuccess);  // the capture is still good
            throw;
        }
    });
    std::size_t nodes = 1;
    BOOST_TEST(cudaGraphGetNodes(graph, nullptr, &nodes) == cudaSuccess);
    BOOST_TEST(nodes == 0u);
    cudaGraphDestroy(graph);
    gf::forward(gpu, dw, x.on_device.view(), y.on_device.view());  // and outside of it the same call works
    gpu.synchronize();
}

BOOST_FIXTURE_TEST_CASE(a_device_that_is_not_there, setup) {
    refuses<gf::cuda_error>({"context", "invalid device"},
                            [] { gf::context<gf::cuda> other(gf::cuda_context_options{.device = 99}); });
}

BOOST_FIXTURE_TEST_CASE(memory_that_is_not_there, setup) {
    refuses<bad_alloc>({}, [&] { gf::make_tensor<float, gf::dyn, 1024>(gpu, gf::index_t{1} << 30); });
    BOOST_TEST(cudaGetLastError() == cudaSuccess);  // the failure is no later call's
    gf::forward(gpu, dw, x.on_device.view(), y.on_device.view());
    gpu.synchronize();
}

BOOST_FIXTURE_TEST_CASE(memory_of_another_device, setup) {
    int devices = 0;
    BOOST_REQUIRE(cudaGetDeviceCount(&devices) == cudaSuccess);
    if (devices < 2) {
        BOOST_TEST_MESSAGE("skipped: one device only");
        return;
    }
    gf::context<gf::cuda> other(gf::cuda_context_options{.device = 1});
    rows far(cpu, other, 6);
    refuses({"context", "stream of device 1", "0"},
            [&] { gf::context<gf::cuda> mixed(gf::cuda_context_options{.stream = stream, .device = 1}); });
    refuses({"forward", "x", "device 0"}, [&] {
        gf::forward(gpu, dw, const_device_rows(far.on_device.data(), {6, hidden}), y.on_device.view());
    });
    refuses({"forward", "y", "device 0"}, [&] { gf::forward(gpu, dw, x.on_device.view(), far.on_device.view()); });

    // The other device's context does everything there, whichever is the current one.
    auto far_w = gf::make_weights<layer>(other);
    gf::copy(other, far_w, w);
    gf::copy(other, far.on_device, x.host);
    rows far_y(cpu, other, 6);
    refuses({"forward", "memory of device 0", "1"},
            [&] { gf::forward(gpu, far_w, x.on_device.view(), y.on_device.view()); });
    gf::forward(other, gf::pack(other, far_w), far.on_device.view(), far_y.on_device.view());
    gf::forward(gpu, dw, x.on_device.view(), y.on_device.view());
    const auto here = fetch(gpu, y.on_device), there = fetch(other, far_y.on_device);
    BOOST_TEST(differences(here.data(), there.data(), y.host.size()) == 0);
    int current = -1;
    BOOST_TEST(cudaGetDevice(&current) == cudaSuccess);
    BOOST_TEST(current == 0);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
