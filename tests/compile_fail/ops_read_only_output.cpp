// EXPECT: no matching function for call to
#include <gatefold/ops/elementwise.hpp>

namespace gf = gatefold;

void twice(gf::context<gf::cpu>& ctx, gf::view<const float, 8> x, gf::view<float, 8> y) {
#ifdef GATEFOLD_BAD
    gf::scale(ctx, 2, y, x);
#else
    gf::scale(ctx, 2, x, y);
#endif
}
