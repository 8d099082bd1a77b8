// Calls that cannot be carried out: each ends in an exception that names what is wrong, and writes nothing.
#include <string>

#include "device.hpp"

namespace gf = gatefold;
using namespace device;

namespace {

constexpr int hidden = 16;
using layer = gf::layer<gf::config{.hidden = hidden, .ffn = 8, .experts = 4, .top_k = 2}, gf::bf16>;
using rows = tokens<gf::bf16, hidden>;
using device_rows = gf::device_view<gf::bf16, gf::dyn, hidden>;
using std::bad_alloc;  // `std` within the suite cuda is cuda::std
using const_device_rows = gf::device_view<const gf::bf16, gf::dyn, hidden>;

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
    refuses({"forward", "x", "device 0"}, [&] {
        gf::forward(gpu, dw, const_device_rows(far.on_device.data(), {6, hidden}), y.on_device.view());
    });
    refuses({"forward", "y", "device 0"}, [&] { gf::forward(gpu, dw, x.on_device.view(), far.on_device.view()); });

    // The other device's context does everything there, whichever is the current one.
    auto far_w = gf::make_weights<layer>(other);
    gf::copy(other, far_w, w);
    gf::copy(other, far.on_device, x.host);
    rows far_y(cpu, other, 6);
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
