// The first-screen example of the README: a layer is a type, its cost is a constant, one call runs it.
#include <cstdio>

#include <gatefold/gatefold.hpp>

namespace gf = gatefold;

// 8 experts, 2 per token; and the dense layer of the same experts, which is the one-expert case.
using moe =
    gf::layer<gf::config{.hidden = 256, .ffn = 512, .experts = 8, .top_k = 2, .router = gf::routers::mixtral}, float>;
using dense = gf::layer<gf::config{.hidden = 256, .ffn = 512}, float>;

static_assert(moe::parameters == 8 * dense::parameters + 256 * 8);
static_assert(moe::active_parameters == 2 * dense::parameters + 256 * 8);

int main() {
    gf::context<gf::cpu> ctx;
    const auto w = gf::random_weights<moe>(ctx, gf::seed{1});
    auto x = gf::make_tensor<float, gf::dyn, 256>(ctx, 4), y = gf::make_tensor<float, gf::dyn, 256>(ctx, 4);
    for (gf::index_t i = 0; i < x.size(); ++i) x.data()[i] = static_cast<float>(i % 7 - 3) / 4;

    gf::forward(ctx, w, x.view(), y.view());

    std::printf("parameters %lld, active per token %lld, flops per token %lld\n",
                static_cast<long long>(moe::parameters), static_cast<long long>(moe::active_parameters),
                static_cast<long long>(moe::flops));
    for (gf::index_t t = 0; t < 4; ++t)
        std::printf("token %lld: y = %+.4f %+.4f %+.4f ...\n", static_cast<long long>(t), static_cast<double>(y(t, 0)),
                    static_cast<double>(y(t, 1)), static_cast<double>(y(t, 2)));
}
