// What a layer costs whose router is one of the heaviest to compile: forward and backward of one configuration.
#include <gatefold/gatefold.hpp>

namespace gf = gatefold;
using moe = gf::layer<gf::config{.hidden = 512,
                                 .ffn = 1024,
                                 .experts = 8,
                                 .top_k = 2,
                                 .router = gf::routers::moe_plus_plus,
                                 .free = {.constant = 2, .copy = 1, .zero = 1}},
                      float>;

void step(gf::context<gf::cpu>& ctx, const gf::weights<moe, gf::cpu>& w, const gf::batch<moe>& in,
          gf::view<const float, gf::dyn, 512> dy, gf::view<float, gf::dyn, 512> y, gf::view<float, gf::dyn, 512> dx,
          gf::tape<moe>& tape, gf::gradients<moe, gf::cpu>& g) {
    gf::forward(ctx, w, in, y, tape);
    gf::backward(ctx, w, in, tape, dy, dx, g);
}
