// A kernel of one's own between two stages: the layer is called stage by stage, and what one expert returns is shifted
// by a vector before the combine. Without the kernel the stages give the bits of forward.
#include <cstdio>

#include <gatefold/gatefold.hpp>

namespace gf = gatefold;

using moe = gf::layer<gf::config{.hidden = 48, .ffn = 32, .experts = 8, .top_k = 2}, float>;
using rows = gf::tensor<float, gf::dyn, moe::hidden>;

/// Adds `shift` to the rows of one expert: rows [offsets[expert], offsets[expert + 1]) of z.
__global__ void shift_expert(const std::int32_t* offsets, int expert, const float* shift, float* z) {
    for (int r = offsets[expert] + static_cast<int>(blockIdx.x); r < offsets[expert + 1];
         r += static_cast<int>(gridDim.x))
        z[r * moe::width + static_cast<int>(threadIdx.x)] += shift[threadIdx.x];
}

int main() {
    constexpr int tokens = 40;
    gf::context<gf::cpu> cpu;
    gf::context<gf::cuda> gpu;
    auto w = gf::make_weights<moe>(gpu);
    gf::copy(gpu, w, gf::random_weights<moe>(cpu, gf::seed{1}));
    auto host = gf::make_tensor<float, gf::dyn, moe::hidden>(cpu, tokens);
    for (gf::index_t i = 0; i < host.size(); ++i) host.data()[i] = static_cast<float>(i * 37 % 101) / 50 - 1;
    auto x = gf::make_tensor<float, gf::dyn, moe::hidden>(gpu, tokens);
    auto y = gf::make_tensor<float, gf::dyn, moe::hidden>(gpu, tokens);
    gf::copy(gpu, x, host);
    auto shift = gf::make_tensor<float, moe::hidden>(gpu);
    auto ones = gf::make_tensor<float, moe::hidden>(cpu);
    gf::fill(cpu, 1, ones);
    gf::copy(gpu, shift, ones);

    // What the stages hand on is the caller's memory.
    auto ids = gf::make_tensor<std::int32_t, gf::dyn, moe::slots>(gpu, tokens);
    auto weights = gf::make_tensor<float, gf::dyn, moe::slots>(gpu, tokens);
    auto logits = gf::make_tensor<float, gf::dyn, moe::choices>(gpu, tokens);
    auto z = gf::make_tensor<float, gf::dyn, moe::width>(gpu, tokens * moe::slots);
    gf::plan<moe, gf::cuda> plan_memory(gpu, tokens);
    const gf::routing_view<moe, gf::cuda> routing{ids.view(), weights.view(), logits.view()};
    const gf::plan_view<gf::cuda> plan = plan_memory.view(tokens);
    const gf::batch<moe, gf::cuda> in{.x = x.view()};

    const auto call = [&](bool shifted) {
        gf::route(gpu, w, in, routing);
        gf::make_plan<moe>(gpu, ids.view(), plan);
        gf::experts(gpu, w, in, plan, routing, z.view());
        if (shifted) shift_expert<<<32, moe::width, 0, gpu.stream()>>>(plan.offsets.data(), 3, shift.data(), z.data());
        gf::combine(gpu, w, in, plan, routing, z.view(), y.view());
        auto result = gf::make_tensor<float, gf::dyn, moe::hidden>(cpu, tokens);
        gf::copy(gpu, result, y);
        return result;
    };
    const auto distinct = [&](const rows& a, const rows& b) {
        int tokens_that_differ = 0;
        for (int t = 0; t < tokens; ++t) {
            bool same = true;
            for (int h = 0; h < moe::hidden; ++h) same = same && a(t, h) == b(t, h);
            tokens_that_differ += same ? 0 : 1;
        }
        return tokens_that_differ;
    };
    gf::forward(gpu, w, x.view(), y.view());
    auto whole = gf::make_tensor<float, gf::dyn, moe::hidden>(cpu, tokens);
    gf::copy(gpu, whole, y);
    auto offsets = gf::make_tensor<std::int32_t, moe::choices + 1>(cpu);
    const rows plain = call(false), shifted = call(true);
    gf::copy(gpu, offsets.view(), gf::device_view<const std::int32_t, gf::dyn>(plan.offsets));

    std::printf("stage by stage: %d of %d tokens differ from forward\n", distinct(plain, whole), tokens);
    std::printf("expert 3 shifted: %d of %d tokens differ; %d rows were its own\n", distinct(shifted, plain), tokens,
                offsets(4) - offsets(3));
}
