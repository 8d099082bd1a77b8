// Compiled for this machine.
#include "exchange.hpp"

void link_test::forward_native(const gf::weights<moe, gf::cpu>& w, input x, output y) {
    gf::context<gf::cpu> ctx;
    gf::forward(ctx, w, x, y);
}
