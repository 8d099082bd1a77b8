// EXPECT: gatefold::matmul: out must have as many rows as a (after transposition)
#include <gatefold/ops/matmul.hpp>

namespace gf = gatefold;

void multiply(gf::context<gf::cpu>& ctx, gf::view<float, 3, 10> a, gf::view<float, 10, 10> b,
              gf::view<float, 3, 10> out) {
#ifdef GATEFOLD_BAD
    gf::matmul(ctx, a, b, b);
#else
    gf::matmul(ctx, a, b, out);
#endif
}
