// A layer of one expert compiles to the FFN alone.
// PRESENT: on_cpu::layer_forward<
// PRESENT: on_cpu::layer_backward<
// ABSENT: on_cpu::(route(_\w+)?|choose_token|compute_logits|logits_\w+|weigh|capacity_\w+)[<(]
// ABSENT: on_cpu::(build_plan[<(]|route_and_plan[<(]|plan_builder::)
// ABSENT: on_cpu::(combine\w*|add_routed)[<(]
// ABSENT: on_cpu::expert_dropout<
#include <gatefold/gatefold.hpp>

namespace gf = gatefold;
using dense = gf::layer<gf::config{.hidden = 64, .ffn = 96}, float>;

void step(gf::context<gf::cpu>& ctx, const gf::weights<dense, gf::cpu>& w, const gf::batch<dense>& in,
          gf::view<const float, gf::dyn, 64> dy, gf::view<float, gf::dyn, 64> y, gf::view<float, gf::dyn, 64> dx,
          gf::tape<dense>& tape, gf::gradients<dense, gf::cpu>& g) {
    gf::forward(ctx, w, in, y, tape);
    gf::backward(ctx, w, in, tape, dy, dx, g);
}
