// Compiled for an x86-64 without AVX.
#include "exchange.hpp"

void link_test::forward_baseline(const gf::weights<moe, gf::cpu>& w, input x, output y) {
    gf::context<gf::cpu> ctx;
    gf::forward(ctx, w, x, y);
}
