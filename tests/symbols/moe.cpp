// The twin of dense.cpp: its expressions would find router, plan and combine if they were there.
// PRESENT: on_cpu::(route(_\w+)?|choose_token|compute_logits|logits_\w+|weigh|capacity_\w+)[<(]
// PRESENT: on_cpu::(build_plan[<(]|route_and_plan[<(]|plan_builder::)
// PRESENT: on_cpu::(combine\w*|add_routed)[<(]
// ABSENT: on_cpu::expert_dropout<
#include <gatefold/gatefold.hpp>

namespace gf = gatefold;
using moe = gf::layer<gf::config{.hidden = 64, .ffn = 96, .experts = 4, .top_k = 2}, float>;

void step(gf::context<gf::cpu>& ctx, const gf::weights<moe, gf::cpu>& w, const gf::batch<moe>& in,
          gf::view<const float, gf::dyn, 64> dy, gf::view<float, gf::dyn, 64> y, gf::view<float, gf::dyn, 64> dx,
          gf::tape<moe>& tape, gf::gradients<moe, gf::cpu>& g) {
    gf::forward(ctx, w, in, y, tape);
    gf::backward(ctx, w, in, tape, dy, dx, g);
}
