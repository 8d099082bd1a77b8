#include "measure.hpp"

namespace bench {

void report(benchmark::State& state, const work& w, const rates& r, double mean, double best) {
    const double compute = w.flops / (1e9 * r.gflops), memory = w.bytes / (1e9 * r.dram_gbs);
    const double floor = (std::max)(compute, memory);
    state.counters["floor_us"] = 1e6 * floor;
    state.counters["of_floor"] = mean / floor;
    state.counters["best_of_floor"] = best / floor;
    state.counters["gflops_peak"] = r.gflops;
    state.counters["dram_gbs"] = r.dram_gbs;
    state.counters["distinct_experts"] = w.experts;
    state.counters["tokens_per_second"] = w.tokens / mean;
    state.SetLabel(compute > memory ? "floor: arithmetic" : "floor: memory");
}

drawer& layers() {
    static drawer d;
    return d;
}
drawer& inputs_drawer() {
    static drawer d;
    return d;
}

bool lacks_memory(benchmark::State& state, double bytes) {
    constexpr double spare = 1e9;
    if (bytes + spare < free_memory()) return false;
    const std::string text =
        "needs " + std::to_string(static_cast<int>((bytes + spare) / 1e9) + 1) + " GB of free memory";
    state.SkipWithError(text.c_str());
    return true;
}

void add(const std::string& name, std::function<void(benchmark::State&)> run) {
    benchmark::RegisterBenchmark(name.c_str(), std::move(run))->Unit(benchmark::kMicrosecond);
}

}  // namespace bench
