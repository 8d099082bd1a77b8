// Sort by expert on CUDA in three ways: the library's plan, the same plan written in Thrust, and a Thrust algorithm of
// one's own over the library's tensors. All of them run in the context's stream, on the ids that the router left on the
// device.
#include <cstdio>

#include <thrust/count.h>
#include <thrust/equal.h>

#include <gatefold/gatefold.hpp>
#include <gatefold/interop/thrust.hpp>

namespace gf = gatefold;

using moe = gf::layer<gf::config{.hidden = 32, .ffn = 16, .experts = 6, .top_k = 2}, float>;

int main() {
    constexpr int tokens = 500, pairs = tokens * moe::slots;
    gf::context<gf::cpu> cpu;
    gf::context<gf::cuda> gpu;
    auto weights = gf::make_weights<moe>(gpu);
    gf::copy(gpu, weights, gf::random_weights<moe>(cpu, gf::seed{1}));
    auto host_x = gf::make_tensor<float, gf::dyn, moe::hidden>(cpu, tokens);
    for (gf::index_t i = 0; i < host_x.size(); ++i) host_x.data()[i] = static_cast<float>(i * 37 % 101) / 50 - 1;
    auto x = gf::make_tensor<float, gf::dyn, moe::hidden>(gpu, tokens);
    gf::copy(gpu, x, host_x);

    auto ids = gf::make_tensor<std::int32_t, gf::dyn, moe::slots>(gpu, tokens);
    auto gates = gf::make_tensor<float, gf::dyn, moe::slots>(gpu, tokens);
    auto logits = gf::make_tensor<float, gf::dyn, moe::choices>(gpu, tokens);
    gf::route(gpu, weights, {.x = x.view()}, {ids.view(), gates.view(), logits.view()});

    // 1. The library's: offsets of every expert, rows in its order, and where each pair went.
    gf::plan<moe, gf::cuda> plan(gpu, tokens);
    gf::make_plan<moe>(gpu, ids.view(), plan.view(tokens));

    // 2. stable_sort_by_key, lower_bound and scatter.
    const auto stream = thrust::cuda::par.on(gpu.stream());
    gf::plan<moe, gf::cuda> sorted(gpu, tokens);
    auto keys = gf::make_tensor<std::int32_t, gf::dyn>(gpu, pairs);
    gf::interop::make_plan(stream, gf::device_view<const std::int32_t, gf::dyn>(ids.data(), {pairs}), moe::choices,
                           sorted.view(tokens), keys.view());
    const auto same = [&](const auto& a, const auto& b) {
        return thrust::equal(stream, gf::interop::begin(a), gf::interop::end(a), gf::interop::begin(b));
    };
    const auto mine = plan.view(tokens), theirs = sorted.view(tokens);
    std::printf("rows %s, offsets %s, places %s\n", same(mine.rows, theirs.rows) ? "equal" : "differ",
                same(mine.offsets, theirs.offsets) ? "equal" : "differ",
                same(mine.place, theirs.place) ? "equal" : "differ");

    // 3. Anything else: views are ranges.
    for (int e = 0; e < moe::experts; ++e)
        std::printf("expert %d: %lld rows\n", e,
                    static_cast<long long>(
                        thrust::count(stream, gf::interop::begin(keys.view()), gf::interop::end(keys.view()), e)));
}
