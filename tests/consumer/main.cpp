// What every way of using the library must be able to build: the umbrella, a layer, a forward call.
#ifdef SINGLE_HEADER
#include <gatefold.hpp>
#else
#include <gatefold/gatefold.hpp>
#endif

#include <cstdio>

namespace gf = gatefold;
using moe = gf::layer<gf::config{.hidden = 16, .ffn = 32, .experts = 4, .top_k = 2}, float>;

int main() {
    gf::context<gf::cpu> ctx;
    const auto w = gf::random_weights<moe>(ctx, gf::seed{1});
    auto x = gf::make_tensor<float, gf::dyn, moe::hidden>(ctx, 3);
    auto y = gf::make_tensor<float, gf::dyn, moe::hidden>(ctx, 3);
    for (gf::index_t i = 0; i < 3 * moe::hidden; ++i) x.data()[i] = 0.25f;
    gf::forward(ctx, w, x.view(), y.view());
    std::printf("gatefold %d.%d.%d: %g\n", gf::version_major, gf::version_minor, gf::version_patch,
                static_cast<double>(y.data()[0]));
    return y.data()[0] == y.data()[moe::hidden] ? 0 : 1;  // equal tokens, equal outputs
}
