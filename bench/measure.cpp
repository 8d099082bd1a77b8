#include "measure.hpp"

#include <limits>

namespace bench {

void report(benchmark::State& state, const work& w, const rates& r, const std::vector<sample>& samples) {
    sample all;
    double floor = 0, best = std::numeric_limits<double>::infinity(), arithmetic = 0;
    for (const sample& s : samples) {
        const double compute = s.calls * w.flops / (1e9 * r.gflops),
                     memory = (s.calls * w.bytes + s.experts * w.expert_bytes) / (1e9 * r.dram_gbs),
                     least = (std::max)(compute, memory);
        arithmetic += compute;
        floor += least;
        best = (std::min)(best, s.seconds / least);
        all = {all.seconds + s.seconds, all.calls + s.calls, all.experts + s.experts};
    }
    state.counters["floor_us"] = 1e6 * floor / all.calls;
    state.counters["of_floor"] = all.seconds / floor;
    state.counters["best_of_floor"] = best;
    state.counters["gflops_peak"] = r.gflops;
    state.counters["dram_gbs"] = r.dram_gbs;
    state.counters["distinct_experts"] = all.experts / all.calls;
    state.counters["tokens_per_second"] = w.tokens * all.calls / all.seconds;
    state.SetLabel(arithmetic > 0.999 * floor ? "floor: arithmetic" : "floor: memory");
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
