// Small layers the way a control loop or an audio callback runs them: one token a call, 64 calls a period, and between
// periods other work that takes the first-level cache. What counts is the latency of each call, not their rate.
//
//     realtime/ffn_hH      dense layer H -> 4 H -> H with relu and biases; RTNeural's of the same numbers in turn
//     realtime/moe_hH_kK   4 experts H -> 2 H -> H of swiglu, K a token
//
// Weights stay in the second-level cache. Latencies are those of the wall clock under the scheduler that is there; a
// reading of the clock (clock_ns) is in each of them.
#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "data.hpp"
#include "heap.hpp"
#include "measure.hpp"
#include "peers/small_ffn.hpp"

namespace bench {
namespace {

constexpr int period = 64, fewest_periods = 1600;

using clock = std::chrono::steady_clock;
double nanoseconds(clock::time_point from, clock::time_point to) {
    return std::chrono::duration<double, std::nano>(to - from).count();
}

/// An allocator that counts, for the context.
void* count_and_allocate(void*, std::size_t bytes, std::size_t alignment) {
    count_allocation();
    return system_allocator.allocate(system_allocator.self, bytes, alignment);
}
constexpr allocator counting{nullptr, &count_and_allocate, system_allocator.release};

/// Latencies of one layer's calls, in nanoseconds.
struct latencies {
    std::vector<double> calls, periods;

    void add_to(benchmark::State& state, const std::string& name) {
        const auto at = [](std::vector<double>& from, double share) {
            std::sort(from.begin(), from.end());
            return from[static_cast<std::size_t>(share * static_cast<double>(from.size() - 1))];
        };
        state.counters[name + "median_ns"] = at(calls, 0.5);
        state.counters[name + "p99_9_ns"] = at(calls, 0.999);
        state.counters[name + "worst_ns"] = at(calls, 1);
        state.counters[name + "period_p99_9_us"] = 1e-3 * at(periods, 0.999);
    }
};

/// One period of calls.
template <class Call>
void run_period(latencies& to, Call&& call) {
    double sum = 0;
    clock::time_point before = clock::now();
    for (int i = 0; i < period; ++i) {
        call(i);
        const clock::time_point after = clock::now();
        to.calls.push_back(nanoseconds(before, after));
        sum += to.calls.back();
        before = after;
    }
    to.periods.push_back(sum);
}

/// Reads what is larger than a first-level cache and smaller than a second-level one.
void other_work() {
    static const std::vector<int> other(32768, 1);
    int sum = 0;
    for (const int x : other) sum += x;
    benchmark::DoNotOptimize(sum);
}

/// Loads `bytes` once, as a call must load the weights that it uses.
void load_all(const std::byte* from, index_t bytes) {
    namespace simd = gatefold::detail::on_cpu;
    constexpr int chains = 4;
    constexpr index_t width = simd::lanes<float>, step = chains * width;
    const auto* numbers = reinterpret_cast<const float*>(from);
    simd::vec<float> sums[chains];
    for (auto& sum : sums) sum = simd::zeros<float>();
    for (index_t i = 0; i + step <= bytes / index_t{sizeof(float)}; i += step)
        for (int c = 0; c < chains; ++c) sums[c] = sums[c] + simd::load<float>(numbers + i + c * width);
    for (auto& sum : sums) benchmark::DoNotOptimize(sum.raw);
}

template <config C>
void run(benchmark::State& state) {
    using L = layer<C, float>;
    context<cpu> ctx(context_options{.threads = 1, .memory = counting});
    weights<L> w;
    make_layer(ctx, 0, w);
    const packed<L> p = pack(ctx, w);
    auto x = make_tensor<float, dyn, L::hidden>(ctx, period);
    fill(x.data(), x.size(), 1, input_streams);
    auto y = make_tensor<float, dyn, L::hidden>(ctx, 1);
    ctx.reserve<L>(1, false);
    ctx.fix_workspace();
    const auto ours = [&](int i) { forward(ctx, p, x.view().slice(i, 1), y.view()); };

    std::unique_ptr<small_ffn> other;
    if constexpr (L::is_dense && has_small_peer) {
        other = make_rtneural(L::hidden, L::ffn);
        other->set(w.up.data(), w.gate_up_bias.data(), w.down.data(), w.down_bias.data());
        for (int i = 0; i < period; ++i) {
            ours(i);
            const float* theirs = other->run(x.view().row(i));
            for (int h = 0; h < L::hidden; ++h)
                if (std::abs(theirs[h] - y(0, h)) > 1e-5f) return state.SkipWithError("RTNeural's outputs differ");
        }
    }

    latencies own, theirs, loads, nothing;
    constexpr auto room = static_cast<std::size_t>(period) * (1 << 16);
    for (latencies* l : {&own, &theirs, &loads, &nothing}) l->calls.reserve(room), l->periods.reserve(1 << 16);
    const rates before = probe(unit::f32, 1);
    long allocated = 0;
    const auto once = [&] {
        other_work();
        const long begun = allocations();
        run_period(own, ours);
        allocated += allocations() - begun;
        other_work();
        if (other) run_period(theirs, [&](int i) { benchmark::DoNotOptimize(other->run(x.view().row(i))); });
        other_work();
        run_period(loads, [&](int) { load_all(p.matrices.data(), p.matrices.size() / L::experts * L::slots); });
        run_period(nothing, [](int) {});
    };
    for ([[maybe_unused]] auto turn : state) once();
    while (own.periods.size() < fewest_periods) once();
    const rates r = faster(before, probe(unit::f32, 1));

    own.add_to(state, "");
    if (other) theirs.add_to(state, "rtneural_");
    const double floor = static_cast<double>(L::flops) / r.gflops, clock_ns = median(nothing.calls);
    state.counters["floor_ns"] = floor;
    state.counters["clock_ns"] = clock_ns;
    const double own_ns = state.counters["median_ns"] - clock_ns, loads_ns = median(loads.calls) - clock_ns;
    state.counters["loads_ns"] = loads_ns;
    state.counters["over_floor_ns"] = own_ns - floor;
    state.counters["over_needed_ns"] = own_ns - (std::max)(floor, loads_ns);
    state.counters["allocations"] = static_cast<double>(allocated);
    state.counters["calls"] = static_cast<double>(own.calls.size());
}

constexpr config ffn(int width) { return {.hidden = width, .ffn = 4 * width, .act = activation::relu, .bias = true}; }
constexpr config moe(int width, int top_k) {
    return {.hidden = width, .ffn = 2 * width, .experts = 4, .top_k = top_k, .router = routers::olmoe};
}

template <int Width>
void register_width() {
    const std::string width = "_h" + std::to_string(Width);
    const auto named = [](const std::string& model) { return "realtime/" + model + "/f32/tokens:1/threads:1"; };
    add(named("ffn" + width), &run<ffn(Width)>);
    add(named("moe" + width + "_k1"), &run<moe(Width, 1)>);
    add(named("moe" + width + "_k2"), &run<moe(Width, 2)>);
}

}  // namespace

void register_realtime() {
    register_width<16>();
    register_width<32>();
    register_width<64>();
}

}  // namespace bench
