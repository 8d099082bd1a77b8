#include "cuda_measure.cuh"

namespace bench {
namespace {

cudaStream_t make_stream() {
    cudaStream_t stream = nullptr;
    detail::check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
    return stream;
}

}  // namespace

context<cuda>& gpu() {
    static context<cuda> ctx(make_stream());
    return ctx;
}

bool& counts_only() {
    static bool value = false;
    return value;
}

double device_cache() {
    int bytes = 0;
    detail::check(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, gpu().device()), "cache");
    return bytes;
}

bool lacks_device_memory(benchmark::State& state, double bytes) {
    constexpr double spare = 1e9;
    std::size_t free = 0, total = 0;
    detail::check(cudaMemGetInfo(&free, &total), "memory");
    if (counts_only() || bytes + spare < static_cast<double>(free)) return false;
    const std::string text =
        "needs " + std::to_string(static_cast<int>((bytes + spare) / 1e9) + 1) + " GB of free device memory";
    state.SkipWithError(text.c_str());
    return true;
}

void add_on_device(const std::string& name, std::function<void(benchmark::State&)> run) {
    benchmark::RegisterBenchmark(name.c_str(), std::move(run))->Unit(benchmark::kMicrosecond)->UseManualTime();
}

stream_timer::stream_timer() {
    detail::check(cudaEventCreate(&begin_), "timer");
    detail::check(cudaEventCreate(&end_), "timer");
}
stream_timer::~stream_timer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
}
void stream_timer::start() { detail::check(cudaEventRecord(begin_, gpu().stream()), "timer"); }
double stream_timer::seconds() {
    detail::check(cudaEventRecord(end_, gpu().stream()), "timer");
    detail::check(cudaEventSynchronize(end_), "timer");
    float milliseconds = 0;
    detail::check(cudaEventElapsedTime(&milliseconds, begin_, end_), "timer");
    return 1e-3 * static_cast<double>(milliseconds);
}

void recorded::finish() {
    cudaGraph_t graph = nullptr;
    detail::check(cudaStreamEndCapture(gpu().stream(), &graph), "graph");
    const cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    detail::check(status, "graph");
}
recorded::~recorded() { cudaGraphExecDestroy(graph_); }
void recorded::replay() { detail::check(cudaGraphLaunch(graph_, gpu().stream()), "graph"); }

}  // namespace bench
