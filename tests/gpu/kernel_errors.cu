// A kernel that reads where there is nothing: kernel_errors MODE. `immediate`: the call itself throws; `deferred`:
// it may return, and whatever waits for the stream throws. The process cannot use CUDA again, so each mode has its own.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <gatefold/gatefold.hpp>

namespace gf = gatefold;

using moe = gf::layer<gf::config{.hidden = 16, .ffn = 8, .experts = 4, .top_k = 2}, float>;

/// What the call says, or nothing.
template <class Call>
std::string message_of(Call call) {
    try {
        call();
    } catch (const gf::cuda_error& e) {
        return e.what();
    }
    return "";
}

int main(int argc, char** argv) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return std::puts("skipped: no CUDA device"), 77;
    const bool immediate = argc > 1 && std::strcmp(argv[1], "immediate") == 0;
    gf::context<gf::cuda> gpu(
        gf::cuda_context_options{.errors = immediate ? gf::kernel_errors::immediate : gf::kernel_errors::deferred});
    const auto w = gf::make_weights<moe>(gpu);
    auto x = gf::make_tensor<float, gf::dyn, moe::hidden>(gpu, 1);
    x.set_zero(gpu.stream());
    gpu.synchronize();
    // A plan that sends a row to a token far beyond the last: plans on the device are not looked into.
    gf::plan<moe, gf::cuda> memory(gpu, 1);
    const gf::plan_view<gf::cuda> plan = memory.view(1);
    const std::int32_t rows[2] = {1 << 30, 1 << 30}, offsets[moe::choices + 1] = {0, 1, 2, 2, 2};
    gf::copy(gpu, plan.rows, gf::view<const std::int32_t, gf::dyn>(rows, {2}));
    gf::copy(gpu, plan.offsets, gf::view<const std::int32_t, gf::dyn>(offsets, {moe::choices + 1}));
    auto ids = gf::make_tensor<std::int32_t, gf::dyn, moe::slots>(gpu, 1);
    auto gates = gf::make_tensor<float, gf::dyn, moe::slots>(gpu, 1);
    auto logits = gf::make_tensor<float, gf::dyn, moe::choices>(gpu, 1);
    auto z = gf::make_tensor<float, gf::dyn, moe::width>(gpu, moe::slots);
    const gf::routing_view<moe, gf::cuda> routing{ids.view(), gates.view(), logits.view()};
    const std::string called = message_of([&] { gf::experts(gpu, w, {.x = x.view()}, plan, routing, z.view()); });
    const std::string waited = message_of([&] { gpu.synchronize(); });
    std::printf("experts: %s\nsynchronize: %s\n", called.c_str(), waited.c_str());
    const bool right = immediate ? !called.empty() : !waited.empty();
    std::puts(right ? "ends as documented" : "something else than documented");
    std::fflush(stdout);
    std::_Exit(right ? 0 : 1);  // nothing here can be freed in order any more
}
