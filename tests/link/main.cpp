// Weights and views made here are used by translation units compiled for other instruction sets. Each must link and run
// its own instructions (a shared function body would crash an older machine); those with FMA give the same bits, and
// those without give the same numbers but for rounding.
#include <cmath>
#include <cstdio>
#include <cstring>

#include "exchange.hpp"

using namespace link_test;

int main() {
    constexpr int tokens = 5, count = tokens * moe::hidden;
    gf::context<gf::cpu> ctx;
    const auto w = gf::random_weights<moe>(ctx, gf::seed{1});
    auto x = gf::make_tensor<float, gf::dyn, moe::hidden>(ctx, tokens);
    for (int i = 0; i < count; ++i) x.data()[i] = static_cast<float>(i % 17) / 16 - 0.5f;
    auto expected = gf::make_tensor<float, gf::dyn, moe::hidden>(ctx, tokens);
    forward_native(w, x.view(), expected.view());

    int failures = 0;
    const auto compare = [&](const char* name, auto forward, bool bits) {
        auto y = gf::make_tensor<float, gf::dyn, moe::hidden>(ctx, tokens);
        forward(w, x.view(), y.view());
        bool same = std::memcmp(y.data(), expected.data(), sizeof(float) * count) == 0;
        if (!bits) {
            same = true;
            for (int i = 0; i < count; ++i)
                same = same && std::fabs(y.data()[i] - expected.data()[i]) <= 1e-6f;  // outputs are about 0.01
        }
        std::printf("%-10s %s\n", name, same ? (bits ? "same bits" : "same but for rounding") : "DIFFERS");
        failures += !same;
    };
    const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    compare("baseline", forward_baseline, !fma);
    if (fma) {
        compare("avx2", forward_avx2, true);
#ifdef GATEFOLD_LINK_WITH_CU
        compare("avx2, .cu", forward_in_cu, true);
#endif
    }
    return failures;
}
