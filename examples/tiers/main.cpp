// One program for many machines: the same layer compiled for several instruction sets, and one choice when it starts.
//
// The recipe: an interface (model.hpp), one small file per instruction set with its own flags (CMakeLists.txt: all of
// ours are set there), and a question to the processor. Weights are packed by the model that will read them, because
// the packed order belongs to the instruction set. This file is compiled without flags and is linked first, so that
// functions of the standard library that several files bring along are taken from here.
#include <cstdio>
#include <cstring>
#include <string>

#include <cpuid.h>

#include "model.hpp"

using namespace tiers;

namespace {

using factory = std::unique_ptr<model> (*)(const weights&);
struct choice {
    bool runs, fuses;  ///< the processor has it; it multiplies and adds in one step
    factory make;
};

/// A bit of the processor's answer to leaf 7.
bool has(unsigned part, int word, int bit) {
    unsigned words[4] = {};
    return __get_cpuid_count(7, part, &words[0], &words[1], &words[2], &words[3]) != 0 && (words[word] >> bit & 1) != 0;
}

}  // namespace

int main() {
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    const bool bf16 = avx512 && has(1, 0, 5);
    // Whether the system lends the tiles is gatefold's question, asked once; if not, that model runs on AVX-512.
    const bool amx = bf16 && has(0, 3, 24) && has(0, 3, 22);
    const choice choices[] = {{true, false, make_baseline},
                              {avx2, true, make_avx2},
                              {avx512, true, make_avx512},
                              {bf16, true, make_avx512_bf16},
                              {amx, true, make_amx}};

    gf::context<gf::cpu> ctx;
    const weights w = gf::random_weights<layer>(ctx, gf::seed{1});
    constexpr int tokens = 5;
    auto x = gf::make_tensor<float, gf::dyn, layer::hidden>(ctx, tokens);
    for (gf::index_t i = 0; i < x.size(); ++i) x.data()[i] = static_cast<float>(i % 17) / 16 - 0.5f;

    // A program would make the last one that runs. This one makes all of them and compares: the same bits from every
    // instruction set that fuses; without that, products are rounded before they are added.
    auto expected = gf::make_tensor<float, gf::dyn, layer::hidden>(ctx, tokens);
    auto y = gf::make_tensor<float, gf::dyn, layer::hidden>(ctx, tokens);
    const std::size_t bytes = sizeof(float) * tokens * layer::hidden;
    std::string chosen;
    bool compares = false, differs = false;
    for (const choice& c : choices) {
        if (!c.runs) continue;
        const auto made = c.make(w);
        made->forward(x.view(), y.view());
        const bool same = !compares || std::memcmp(y.data(), expected.data(), bytes) == 0;
        std::printf("%-20s %s\n", made->tier(),
                    !c.fuses    ? "runs"
                    : !compares ? "fuses"
                    : same      ? "the same bits"
                                : "OTHER BITS");
        if (c.fuses && !compares) std::memcpy(expected.data(), y.data(), bytes);
        compares = compares || c.fuses;
        differs = differs || !same;
        chosen = made->tier();
    }
    std::printf("chosen: %s\n", chosen.c_str());
    return differs ? 1 : 0;
}
