// EXPECT: gatefold::rms_norm: weight must be one vector as long as a row of x
#include <gatefold/ops/norm.hpp>

namespace gf = gatefold;

void normalise(gf::context<gf::cpu>& ctx, gf::view<float, gf::dyn, 64> x, gf::view<float, 64> w) {
#ifdef GATEFOLD_BAD
    gf::rms_norm(ctx, w, x, w);
#else
    gf::rms_norm(ctx, x, w, x);
#endif
}
