// A layer of one expert compiles to the FFN alone.
// PRESENT: gatefold::.*::forward<
// PRESENT: gatefold::.*::backward<
// ABSENT: gatefold::(v0::)?(detail::)?(\w+::)?(detail::)?(route\w*|make_plan\w*|combine\w*|choose\w*|top_k\w*)(<|\()
// ABSENT: ::impl<gatefold::v0::cpu>::(make_plan|route|combine)
#include <gatefold/gatefold.hpp>

namespace gf = gatefold;
using dense = gf::layer<gf::config{.hidden = 64, .ffn = 96}, float>;

void step(gf::context<gf::cpu>& ctx, const gf::weights<dense, gf::cpu>& w, const gf::batch<dense>& in,
          gf::view<const float, gf::dyn, 64> dy, gf::view<float, gf::dyn, 64> y, gf::view<float, gf::dyn, 64> dx,
          gf::tape<dense>& tape, gf::gradients<dense, gf::cpu>& g) {
    gf::forward(ctx, w, in, y, tape);
    gf::backward(ctx, w, in, tape, dy, dx, g);
}
