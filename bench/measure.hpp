// From a call to a line of the table: timing, floor, counters.
//
//     call(number) ── batches of calls, each timed ──> mean, best ──┐
//     probe before and after ──> GFLOP/s, GB/s ──> floor ───────────┴──> of_floor, best_of_floor
#pragma once

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <string>

#include <benchmark/benchmark.h>

#include "probe.hpp"

namespace bench {

/// What one call has to do at the least.
struct work {
    double flops = 0;    ///< operations of its products
    double bytes = 0;    ///< that must come from or go to memory
    double experts = 0;  ///< distinct experts that it visits
    double tokens = 0;
    unit arithmetic = unit::f32;
};

/// Adds the counters to a finished benchmark.
void report(benchmark::State& state, const work& w, const rates& r, double mean, double best);

/// Runs call(0), call(1), ... as often as the benchmark wants and reports. A call chooses its inputs by its number.
template <class Call>
void measure(benchmark::State& state, int threads, const work& w, Call&& call) {
    constexpr double sample = 5e-5;  // long enough for the clock
    benchmark::IterationCount number = 0, batch = 1;
    for (int warm = 0; warm < 3; ++warm) {
        const double begin = seconds(threads);
        call(number++);
        const double once = seconds(threads) - begin;
        if (once > 1e-2) break;
        batch = static_cast<benchmark::IterationCount>((std::min)(1000.0, 1 + sample / (std::max)(once, 1e-9)));
    }
    rates r = probe(w.arithmetic, threads);
    double total = 0, best = std::numeric_limits<double>::infinity();
    benchmark::IterationCount calls = 0;
    while (state.KeepRunningBatch(batch)) {
        const double begin = seconds(threads);
        for (benchmark::IterationCount i = 0; i < batch; ++i) call(number++);
        const double took = seconds(threads) - begin;
        total += took;
        calls += batch;
        best = (std::min)(best, took / static_cast<double>(batch));
    }
    const rates after = probe(w.arithmetic, threads);
    r = {(std::max)(r.gflops, after.gflops), (std::max)(r.dram_gbs, after.dram_gbs)};
    report(state, w, r, total / static_cast<double>(calls), best);
}

/// Things that are kept between the runs of a benchmark and between neighbouring benchmarks: one in each drawer. Asking
/// for another name empties the drawer first, so that two models are never in memory together.
struct drawer {
    std::string name;
    std::shared_ptr<void> thing;

    template <class T, class Make>
    T& keep(const std::string& wanted, Make make) {
        if (name != wanted) {
            thing.reset();
            name.clear();
            thing = std::make_shared<T>(make());
            name = wanted;
        }
        return *static_cast<T*>(thing.get());
    }
};
drawer& layers();
drawer& inputs_drawer();

/// Refuses a benchmark that needs more memory than there is; true if it was refused.
bool lacks_memory(benchmark::State& state, double bytes);

/// Registers one benchmark under its full name.
void add(const std::string& name, std::function<void(benchmark::State&)> run);

}  // namespace bench
