// EXPECT: no matching function for call to
#include <gatefold/ops/softmax.hpp>

namespace gf = gatefold;

void probabilities(gf::context<gf::cpu>& ctx, [[maybe_unused]] gf::view<float, 8> x,
                   [[maybe_unused]] gf::device_view<float, 8> y) {
#ifdef GATEFOLD_BAD
    gf::softmax(ctx, y, y);
#else
    gf::softmax(ctx, x, x);
#endif
}
