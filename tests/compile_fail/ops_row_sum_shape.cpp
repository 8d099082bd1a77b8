// EXPECT: gatefold::row_sum: out must have the shape of x without its last dimension
#include <gatefold/ops/reduce.hpp>

namespace gf = gatefold;

void add_up(gf::context<gf::cpu>& ctx, gf::view<float, 4, 8> x, [[maybe_unused]] gf::view<float, 4> out) {
#ifdef GATEFOLD_BAD
    gf::row_sum(ctx, x, x);
#else
    gf::row_sum(ctx, x, out);
#endif
}
