// EXPECT: gatefold::update: only a layer that learns from default vectors has them; set .router.learns_from to
// estimator::default_vectors
#include <gatefold/gatefold.hpp>

namespace gf = gatefold;

#ifdef GATEFOLD_BAD
using L = gf::layer<gf::config{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2}, float>;
#else
using L = gf::layer<
    gf::config{
        .hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .router = {.learns_from = gf::estimator::default_vectors}},
    float>;
#endif

void step(gf::context<gf::cpu>& ctx, gf::weights<L>& w, const gf::batch<L>& in, gf::tape<L>& saved) {
    gf::update(ctx, gf::output_average{}, w, in, saved);
}
