// The same header seen by nvcc: host calls from a .cu file.
#include "exchange.hpp"

void link_test::forward_in_cu(const gf::weights<moe, gf::cpu>& w, input x, output y) {
    gf::context<gf::cpu> ctx;
    gf::forward(ctx, w, x, y);
}
