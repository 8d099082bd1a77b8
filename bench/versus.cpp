#include "versus.hpp"

#include <algorithm>
#include <limits>

namespace bench {

void report_race(benchmark::State& state, const work& w, const rates& r, const std::vector<contestant>& all) {
    const contestant& ours = all.front();
    double fastest = std::numeric_limits<double>::infinity(), floor = 0, calls = 0;
    for (const contestant& one : all) {
        const std::vector<double> ratios = of_floor(one, w, r);
        state.counters[one.name + "_of_floor"] = median(ratios);
        state.counters[one.name + "_best_of_floor"] = best(ratios);
        if (&one != &ours) fastest = (std::min)(fastest, median(ratios));
    }
    for (const sample& s : ours.samples) floor += floor_seconds(w, r, s).seconds, calls += s.calls;
    state.counters["floor_us"] = 1e6 * floor / calls;
    state.counters["to_best_peer"] = median(of_floor(ours, w, r)) / fastest;
    state.counters["gflops_peak"] = r.gflops;
    state.counters["dram_gbs"] = r.dram_gbs;
}

}  // namespace bench
