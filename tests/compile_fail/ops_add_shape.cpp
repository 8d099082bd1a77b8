// EXPECT: gatefold::add: a, b and out must have the same shape
#include <gatefold/ops/elementwise.hpp>

namespace gf = gatefold;

void sum(gf::context<gf::cpu>& ctx, gf::view<float, gf::dyn, 64> a, [[maybe_unused]] gf::view<float, gf::dyn, 32> b) {
#ifdef GATEFOLD_BAD
    gf::add(ctx, a, b, a);
#else
    gf::add(ctx, a, a, a);
#endif
}
