// EXPECT: gatefold::embedding: ids must be [T], table [V, H] and out [T, H]
#include <gatefold/ops/embedding.hpp>

namespace gf = gatefold;

void look_up(gf::context<gf::cpu>& ctx, gf::view<const std::int32_t, 6> ids, gf::view<float, 100, 8> table,
             gf::view<float, 6, 8> out) {
#ifdef GATEFOLD_BAD
    gf::embedding(ctx, ids, out, table);
#else
    gf::embedding(ctx, ids, table, out);
#endif
}
