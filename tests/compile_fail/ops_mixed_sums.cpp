// EXPECT: gatefold::mul: double does not mix with other types
#include <gatefold/ops/elementwise.hpp>

namespace gf = gatefold;

void product(gf::context<gf::cpu>& ctx, gf::view<float, 8> a, [[maybe_unused]] gf::view<double, 8> b) {
#ifdef GATEFOLD_BAD
    gf::mul(ctx, a, b, a);
#else
    gf::mul(ctx, a, a, a);
#endif
}
