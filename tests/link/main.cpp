// Weights and views made here are used by translation units compiled with other flags: each must link, run its own
// instructions (a shared function body would crash an older machine), and give the same bits.
#include <cstdio>
#include <cstring>

#include "exchange.hpp"

using namespace link_test;

int main() {
    gf::context<gf::cpu> ctx;
    const auto w = gf::random_weights<moe>(ctx, gf::seed{1});
    constexpr int tokens = 5;
    auto x = gf::make_tensor<float, gf::dyn, moe::hidden>(ctx, tokens);
    auto expected = gf::make_tensor<float, gf::dyn, moe::hidden>(ctx, tokens);
    for (int i = 0; i < tokens * moe::hidden; ++i) x.data()[i] = static_cast<float>(i % 17) / 16 - 0.5f;

    int failures = 0;
    forward_native(w, x.view(), expected.view());
    const auto compare = [&](const char* name, auto forward) {
        auto y = gf::make_tensor<float, gf::dyn, moe::hidden>(ctx, tokens);
        forward(w, x.view(), y.view());
        const bool same = std::memcmp(y.data(), expected.data(), sizeof(float) * tokens * moe::hidden) == 0;
        std::printf("%s: %s\n", name, same ? "same bits" : "DIFFERS");
        failures += !same;
    };
    compare("baseline", forward_baseline);
#ifdef GATEFOLD_LINK_WITH_CU
    compare(".cu", forward_in_cu);
#endif
    return failures;
}
