// EXPECT: gatefold::softmax: x and out must have the same shape
#include <gatefold/ops/softmax.hpp>

namespace gf = gatefold;

void probabilities(gf::context<gf::cpu>& ctx, gf::view<float, gf::dyn, 64> x,
                   [[maybe_unused]] gf::view<float, gf::dyn, gf::dyn, 64> y) {
#ifdef GATEFOLD_BAD
    gf::softmax(ctx, x, y);
#else
    gf::softmax(ctx, x, x);
#endif
}
