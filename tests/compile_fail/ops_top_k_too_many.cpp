// EXPECT: gatefold::top_k: k, the length of the rows of ids, must not exceed the length of the rows of x
#include <gatefold/ops/top_k.hpp>

namespace gf = gatefold;

void choose(gf::context<gf::cpu>& ctx, gf::view<float, gf::dyn, 8> x,
            [[maybe_unused]] gf::view<float, gf::dyn, 1> narrow, gf::view<float, gf::dyn, 2> values,
            gf::view<std::int32_t, gf::dyn, 2> ids) {
#ifdef GATEFOLD_BAD
    gf::top_k(ctx, narrow, values, ids);
#else
    gf::top_k(ctx, x, values, ids);
#endif
}
