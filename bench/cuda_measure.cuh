// From a call on the device to a line of the table: graph replays between two events, floor, counters.
//
//     call(number) ── captured, as many as fill a millisecond, weights in turn ──> graph ── replays ──> samples
//     probe ──> GFLOP/s, GB/s ──> floor ──> of_floor (mean), best_of_floor
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gatefold/gatefold.hpp>

#include "cuda_probe.hpp"
#include "measure.hpp"

namespace bench {

using namespace gatefold;
using gatefold::cuda;  // CUDA's library has a namespace of that name

/// The context of all benches of this program, on a stream of its own.
context<cuda>& gpu();

/// Every benchmark is one call, not timed, for a launcher that counts what kernels do.
bool& counts_only();

/// Bytes of the second-level cache.
double device_cache();

/// Refuses a benchmark that needs more device memory than there is; true if it was refused.
bool lacks_device_memory(benchmark::State& state, double bytes);

/// Registers one benchmark under its full name, timed by events.
void add_on_device(const std::string& name, std::function<void(benchmark::State&)> run);

/// Two events in the stream of gpu().
class stream_timer {
public:
    stream_timer();
    ~stream_timer();
    stream_timer(const stream_timer&) = delete;
    stream_timer& operator=(const stream_timer&) = delete;
    void start();
    double seconds();  ///< since start(), in the order of the stream

private:
    cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

/// What was enqueued while this was being made, to be enqueued again.
class recorded {
public:
    template <class Enqueue>
    explicit recorded(Enqueue&& enqueue) {
        detail::check(cudaStreamBeginCapture(gpu().stream(), cudaStreamCaptureModeThreadLocal), "graph");
        enqueue();
        finish();
    }
    ~recorded();
    recorded(const recorded&) = delete;
    recorded& operator=(const recorded&) = delete;
    void replay();

private:
    void finish();
    cudaGraphExec_t graph_ = nullptr;
};

/// Whether calls are replayed from a graph; those that wait for the device cannot be recorded.
enum class replay { from_graph, call_by_call };

/// Runs call(0), call(1), ... in graphs and reports. A call chooses its data by its number; after `turn` calls the
/// first data come again. visited(number): how many distinct experts that call visits.
template <class Visited, class Call>
void measure_on_device(benchmark::State& state, const work& w, int turn, Visited&& visited, Call&& call,
                       replay how = replay::from_graph) {
    if (counts_only()) {
        for (auto _ : state) {
            call(0);
            gpu().synchronize();
            state.SetIterationTime(1);
        }
        state.counters["flops"] = w.flops;
        state.counters["minimum_bytes"] = w.bytes + visited(0) * w.expert_bytes;
        state.SetLabel("not timed");
        return;
    }
    constexpr double long_enough = 1e-3, most_calls = 32;
    call(0);  // the workspace grows here, not under capture
    gpu().synchronize();
    const rates r = device_ceilings(w.arithmetic);
    const double least =
        (std::max)(w.flops / (1e9 * r.gflops), (w.bytes + visited(0) * w.expert_bytes) / (1e9 * r.dram_gbs));
    const double wanted = (std::min)(most_calls, (std::max)(1.0, long_enough / least));
    const int calls = turn * (1 + static_cast<int>((wanted - 1) / turn));
    const auto enqueue = [&] {
        for (int i = 0; i < calls; ++i) call(i);
    };
    std::unique_ptr<recorded> graph;
    if (how == replay::from_graph) graph = std::make_unique<recorded>(enqueue);
    const auto run = [&] {
        if (graph)
            graph->replay();
        else
            enqueue();
    };
    sample once{0, static_cast<double>(calls), 0};
    for (int i = 0; i < calls; ++i) once.experts += visited(i);
    run();
    gpu().synchronize();
    stream_timer timer;
    std::vector<sample> samples;
    while (state.KeepRunningBatch(calls)) {
        timer.start();
        run();
        once.seconds = timer.seconds();
        state.SetIterationTime(once.seconds);
        samples.push_back(once);
    }
    report(state, w, r, samples);
}

}  // namespace bench
