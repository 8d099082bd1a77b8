// EXPECT: gatefold::matmul: the columns of a and the rows of b (after transposition) must be equally many
#include <gatefold/ops/matmul.hpp>

namespace gf = gatefold;

void multiply(gf::context<gf::cpu>& ctx, gf::view<float, gf::dyn, 64> a, gf::view<float, 64, 10> b,
              gf::view<float, gf::dyn, 10> out) {
#ifdef GATEFOLD_BAD
    gf::matmul<gf::transpose::b>(ctx, a, b, out);
#else
    gf::matmul(ctx, a, b, out);
#endif
}
