// Compiled for x86-64 with AVX2 and FMA.
#include "exchange.hpp"

void link_test::forward_avx2(const gf::weights<moe, gf::cpu>& w, input x, output y) {
    gf::context<gf::cpu> ctx;
    gf::forward(ctx, w, x, y);
}
