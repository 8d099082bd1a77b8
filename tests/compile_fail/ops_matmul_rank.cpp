// EXPECT: gatefold::matmul: a, b and out must be matrices, that is views of two dimensions
#include <gatefold/ops/matmul.hpp>

namespace gf = gatefold;

void multiply(gf::context<gf::cpu>& ctx, gf::view<float, 3, 10> a, gf::view<float, 10> line, gf::view<float, 10, 5> b,
              gf::view<float, 3, 5> out) {
#ifdef GATEFOLD_BAD
    gf::matmul(ctx, line, b, out);
#else
    gf::matmul(ctx, a, b, out);
#endif
}
