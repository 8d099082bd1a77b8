// The program of the CUDA benches: registers every model and hands over to Google Benchmark.
//
//     gatefold_bench_cuda [--count] [--benchmark_...]      --count: one call of each, not timed, for a launcher that
//     counts
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "cuda_measure.cuh"

namespace bench {

void register_tiny_on_device();
void register_olmoe_on_device();
void register_qwen3_on_device();
void register_gptoss_on_device();
void register_mixtral_on_device();

}  // namespace bench

namespace {

std::string rounded(double value) { return std::to_string(static_cast<long long>(value + 0.5)); }

void add_context() {
    cudaDeviceProp device{};
    gatefold::detail::check(cudaGetDeviceProperties(&device, bench::gpu().device()), "device");
    int driver = 0, runtime = 0;
    gatefold::detail::check(cudaDriverGetVersion(&driver), "driver");
    gatefold::detail::check(cudaRuntimeGetVersion(&runtime), "runtime");
    benchmark::AddCustomContext("device", device.name);
    benchmark::AddCustomContext("compute_capability",
                                std::to_string(device.major) + "." + std::to_string(device.minor));
    benchmark::AddCustomContext("multiprocessors", std::to_string(device.multiProcessorCount));
    benchmark::AddCustomContext("l2_cache_mib", std::to_string(device.l2CacheSize >> 20));
    benchmark::AddCustomContext("cuda_of_driver", std::to_string(driver));
    benchmark::AddCustomContext("cuda_runtime", std::to_string(runtime));
    if (bench::counts_only()) return;
    const bench::device_rates& r = bench::probed_device();
    benchmark::AddCustomContext("float_fma_gflops", rounded(r.fma));
    benchmark::AddCustomContext("bf16_mma_sync_gflops", rounded(r.mma_sync));
    benchmark::AddCustomContext("bf16_wgmma_gflops", rounded(r.wgmma));
    benchmark::AddCustomContext("read_gbs", rounded(r.read));
    benchmark::AddCustomContext("copy_gbs", rounded(r.copied));
}

}  // namespace

int main(int argc, char** argv) try {
    const auto wants_counts = [](const char* argument) { return std::strcmp(argument, "--count") == 0; };
    char** end = std::remove_if(argv + 1, argv + argc, wants_counts);
    bench::counts_only() = end != argv + argc;
    argc = static_cast<int>(end - argv);
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    add_context();

    bench::register_tiny_on_device();
    bench::register_olmoe_on_device();
    bench::register_qwen3_on_device();
    bench::register_gptoss_on_device();
    bench::register_mixtral_on_device();
    const std::size_t run = benchmark::RunSpecifiedBenchmarks();
    bench::layers().clear();
    bench::inputs_drawer().clear();
    benchmark::Shutdown();
    return run > 0 ? 0 : 1;
} catch (const std::exception& e) {
    std::fprintf(stderr, "gatefold_bench_cuda: %s\n", e.what());
    return 1;
}
