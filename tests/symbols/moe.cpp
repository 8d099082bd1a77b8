// The twin of dense.cpp: its expressions would find router, plan and combine if they were there.
// PRESENT: gatefold::(v0::)?(detail::)?(\w+::)?(detail::)?(route\w*|choose\w*|top_k\w*)(<|\()
// PRESENT: gatefold::(v0::)?(detail::)?(\w+::)?(detail::)?make_plan\w*(<|\()
// PRESENT: gatefold::(v0::)?(detail::)?(\w+::)?(detail::)?combine\w*(<|\()
#include <gatefold/gatefold.hpp>

namespace gf = gatefold;
using moe = gf::layer<gf::config{.hidden = 64, .ffn = 96, .experts = 4, .top_k = 2}, float>;

void step(gf::context<gf::cpu>& ctx, const gf::weights<moe, gf::cpu>& w, const gf::batch<moe>& in,
          gf::view<const float, gf::dyn, 64> dy, gf::view<float, gf::dyn, 64> y, gf::view<float, gf::dyn, 64> dx,
          gf::tape<moe>& tape, gf::gradients<moe, gf::cpu>& g) {
    gf::forward(ctx, w, in, y, tape);
    gf::backward(ctx, w, in, tape, dy, dx, g);
}
