// From a call to a line of the table: timing, floor, counters.
//
//     call(number) ── samples of a few calls, each timed ──┐
//     probe before and after ──> GFLOP/s, GB/s ──> floor ──┴──> of_floor (mean), best_of_floor
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include <gatefold/core/index.hpp>

#include "probe.hpp"

namespace bench {

using gatefold::index_t;

/// What one call has to do at the least.
struct work {
    double flops = 0;         ///< operations of its products
    double bytes = 0;         ///< that must come from or go to memory, whatever experts it visits
    double expert_bytes = 0;  ///< the same for each expert that it visits
    double tokens = 0;
    unit arithmetic = unit::f32;
};

/// Successive calls: how long they took together and how many distinct experts each visited, added up.
struct sample {
    double seconds = 0, calls = 0, experts = 0;
};

/// The floor of a sample's calls, given what they visited.
struct floor_of {
    double seconds, compute;  ///< all of it, and what the arithmetic alone would take
};
floor_of floor_seconds(const work& w, const rates& r, const sample& s);

/// Calls between two looks at the clock, found by making the first calls: call(number) advances `number`.
template <class Call>
benchmark::IterationCount calls_per_sample(int threads, benchmark::IterationCount& number, Call&& call) {
    constexpr double long_enough = 5e-5;
    benchmark::IterationCount batch = 1;
    for (int warm = 0; warm < 3; ++warm) {
        const double begin = seconds(threads);
        call(number++);
        const double once = seconds(threads) - begin;
        if (once > 1e-2) break;
        batch = static_cast<benchmark::IterationCount>((std::min)(1000.0, 1 + long_enough / (std::max)(once, 1e-9)));
    }
    return batch;
}

/// Of two readings of the same rates, the faster of each.
inline rates faster(const rates& a, const rates& b) {
    return {(std::max)(a.gflops, b.gflops), (std::max)(a.dram_gbs, b.dram_gbs)};
}

/// Adds the counters to a finished benchmark. Every sample is compared with the floor of what its own calls visited.
void report(benchmark::State& state, const work& w, const rates& r, const std::vector<sample>& samples);

/// Runs call(0), call(1), ... as often as the benchmark wants and reports. A call chooses its inputs by its number;
/// visited(number) tells how many distinct experts it visits.
template <class Visited, class Call>
void measure(benchmark::State& state, int threads, const work& w, Visited&& visited, Call&& call) {
    benchmark::IterationCount number = 0;
    const benchmark::IterationCount batch = calls_per_sample(threads, number, call);
    const rates before = probe(w.arithmetic, threads);
    std::vector<sample> samples;
    while (state.KeepRunningBatch(batch)) {
        sample s{0, static_cast<double>(batch), 0};
        for (benchmark::IterationCount i = 0; i < batch; ++i) s.experts += visited(number + i);
        const double begin = seconds(threads);
        for (benchmark::IterationCount i = 0; i < batch; ++i) call(number++);
        s.seconds = seconds(threads) - begin;
        samples.push_back(s);
    }
    report(state, w, faster(before, probe(w.arithmetic, threads)), samples);
}

/// One of several that run in turn.
struct contestant {
    std::string name;
    int threads;
    std::function<void(index_t)> call;
    std::vector<sample> samples;
};

/// Runs the contestants in turn on the clock for `threads` threads for as long as the benchmark wants: all of them the
/// same calls, in samples that another one begins each time, so that nobody always follows the same neighbour.
void take_turns(benchmark::State& state, int threads, const std::function<double(index_t)>& visited,
                std::vector<contestant>& all);

double median(std::vector<double> values);
double best(const std::vector<double>& values);

/// Time of each sample over its floor.
std::vector<double> of_floor(const contestant& one, const work& w, const rates& r);

/// Things that are kept between the runs of a benchmark and between neighbouring benchmarks: one in each drawer. Asking
/// for another name empties the drawer first, so that two models are never in memory together.
struct drawer {
    std::string name;
    std::shared_ptr<void> thing;

    void clear() {
        thing.reset();
        name.clear();
    }
    template <class T, class Make>
    T& keep(const std::string& wanted, Make make) {
        if (name != wanted) {
            clear();
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
