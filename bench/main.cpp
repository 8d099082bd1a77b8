// The program: registers every model and hands over to Google Benchmark.
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
void register_custom();

}  // namespace bench

int main(int argc, char** argv) {
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    benchmark::AddCustomContext("gatefold_tier", GATEFOLD_TEXT(GATEFOLD_TIER));
    benchmark::AddCustomContext("last_level_cache_mib", std::to_string(bench::last_level_cache() >> 20));

    bench::register_tiny();
    bench::register_olmoe();
    bench::register_qwen3();
    bench::register_gptoss();
    bench::register_mixtral();
#if defined(GATEFOLD_BENCH_CONFIG)
    bench::register_custom();
#endif

    const std::size_t run = benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return run > 0 ? 0 : 1;
}
