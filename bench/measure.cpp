#include "measure.hpp"

#include <limits>

namespace bench {

floor_of floor_seconds(const work& w, const rates& r, const sample& s) {
    const double compute = s.calls * w.flops / (1e9 * r.gflops),
                 memory = (s.calls * w.bytes + s.experts * w.expert_bytes) / (1e9 * r.dram_gbs);
    return {(std::max)(compute, memory), compute};
}

void report(benchmark::State& state, const work& w, const rates& r, const std::vector<sample>& samples) {
    sample all;
    double floor = 0, best = std::numeric_limits<double>::infinity(), arithmetic = 0, used = 0;
    for (const sample& s : samples) {
        const floor_of least = floor_seconds(w, r, s);
        arithmetic += least.compute;
        used = (std::max)(used, least.compute / s.seconds);
        floor += least.seconds;
        best = (std::min)(best, s.seconds / least.seconds);
        all = {all.seconds + s.seconds, all.calls + s.calls, all.experts + s.experts};
    }
    state.counters["floor_us"] = 1e6 * floor / all.calls;
    state.counters["of_floor"] = all.seconds / floor;
    state.counters["best_of_floor"] = best;
    state.counters["of_peak"] = used;
    state.counters["gflops_peak"] = r.gflops;
    state.counters["dram_gbs"] = r.dram_gbs;
    state.counters["distinct_experts"] = all.experts / all.calls;
    state.counters["tokens_per_second"] = w.tokens * all.calls / all.seconds;
    state.SetLabel(arithmetic > 0.999 * floor ? "floor: arithmetic" : "floor: memory");
}

void take_turns(benchmark::State& state, int threads, const std::function<double(index_t)>& visited,
                std::vector<contestant>& all) {
    benchmark::IterationCount number = 0;
    const benchmark::IterationCount batch = calls_per_sample(threads, number, all.front().call);
    std::size_t first = 0;
    while (state.KeepRunningBatch(batch)) {
        for (std::size_t i = 0; i < all.size(); ++i) {
            contestant& one = all[(first + i) % all.size()];
            sample s{0, static_cast<double>(batch), 0};
            for (benchmark::IterationCount c = 0; c < batch; ++c) s.experts += visited(number + c);
            const double begin = seconds(threads);
            for (benchmark::IterationCount c = 0; c < batch; ++c) one.call(number + c);
            s.seconds = seconds(threads) - begin;
            one.samples.push_back(s);
        }
        ++first;
        number += batch;
    }
}

double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}
double best(const std::vector<double>& values) { return *std::min_element(values.begin(), values.end()); }

std::vector<double> of_floor(const contestant& one, const work& w, const rates& r) {
    std::vector<double> ratios;
    for (const sample& s : one.samples) ratios.push_back(s.seconds / floor_seconds(w, r, s).seconds);
    return ratios;
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
