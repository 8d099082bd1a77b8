// EXPECT: gatefold::matmul: out must have as many columns as b (after transposition)
#include <gatefold/ops/matmul.hpp>

namespace gf = gatefold;

void multiply(gf::context<gf::cpu>& ctx, gf::view<float, 3, 10> a, gf::view<float, 10, 5> b,
              gf::view<float, 3, 5> out) {
#ifdef GATEFOLD_BAD
    gf::matmul(ctx, a, b, a);
#else
    gf::matmul(ctx, a, b, out);
#endif
}
