// The program: registers every model and hands over to Google Benchmark.
#include <fstream>
#include <string>

#include <benchmark/benchmark.h>

#include <gatefold/core/macros.hpp>

#include "probe.hpp"

namespace bench {

void register_tiny();
void register_olmoe();
void register_qwen3();
void register_gptoss();
void register_mixtral();
void register_blocking();
void register_sparse();
void register_pack();
void register_off_tile();
void register_realtime();
void register_custom();

}  // namespace bench

namespace {

/// The processor as it names itself, with family and model, since virtual machines shorten the name.
std::string processor() {
    std::string name, family, model;
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line) && (name.empty() || family.empty() || model.empty());) {
        const std::size_t colon = line.find(": ");
        if (colon == std::string::npos) continue;
        const std::string key = line.substr(0, line.find_first_of("\t:")), value = line.substr(colon + 2);
        if (key == "model name") name = value;
        if (key == "cpu family") family = value;
        if (key == "model") model = value;
    }
    return name.empty() ? "unknown" : name + ", family " + family + ", model " + model;
}

}  // namespace

int main(int argc, char** argv) {
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    benchmark::AddCustomContext("cpu", processor());
    benchmark::AddCustomContext("gatefold_tier", GATEFOLD_TEXT(GATEFOLD_TIER));
    benchmark::AddCustomContext("last_level_cache_mib", std::to_string(bench::last_level_cache() >> 20));

    bench::register_tiny();
    bench::register_olmoe();
    bench::register_qwen3();
    bench::register_gptoss();
    bench::register_mixtral();
    bench::register_blocking();
    bench::register_sparse();
    bench::register_pack();
    bench::register_off_tile();
    bench::register_realtime();
#if defined(GATEFOLD_BENCH_CONFIG)
    bench::register_custom();
#endif

    const std::size_t run = benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return run > 0 ? 0 : 1;
}
