// Routers that take the softmax of the chosen.
// ABSENT: on_cpu::(apply_capacity|fill_group|importance_of)[<(]
// ABSENT: on_cpu::(assign_(expert_choice|sinkhorn|balanced)|take_best_tokens)[<(]
// ABSENT: on_cpu::(score_columns|columns_backward|weigh_by_column)[<(]
// ABSENT: on_cpu::(compute_features|prepare_directions)[<(]
// ABSENT: on_cpu::(move_input|input_row_backward)[<(]
// ABSENT: on_cpu::disturb_rows[<(]
// ABSENT: on_cpu::normalised_backward[<(]
// ABSENT: on_cpu::choose_top_p[<(]
// ABSENT: on_cpu::expert_scale_backward[<(]
// ABSENT: on_cpu::free_experts_(forward|backward)[<(]
// ABSENT: on_cpu::constant_(mix|backward)[<(]
// ABSENT: on_cpu::blend_(forward|backward)[<(]
// ABSENT: on_cpu::((all_experts|default_vectors|others)_backward|other_scores_backward)[<(]
// ABSENT: on_cpu::latent_\w+[<(]
// ABSENT: on_cpu::(add_shared|shared_backward|shared_gate_values)[<(]
// ABSENT: on_cpu::expert_dropout<
#include <gatefold/gatefold.hpp>

namespace gf = gatefold;

template <gf::config C>
void step(gf::context<gf::cpu>& ctx, const gf::weights<gf::layer<C, float>>& w,
          const gf::batch<gf::layer<C, float>>& in, gf::view<const float, gf::dyn, 16> dy,
          gf::view<float, gf::dyn, 16> y, gf::view<float, gf::dyn, 16> dx, gf::tape<gf::layer<C, float>>& tape,
          gf::gradients<gf::layer<C, float>>& g) {
    gf::forward(ctx, w, in, y, tape);
    gf::backward(ctx, w, in, tape, dy, dx, g);
}

constexpr gf::config granite{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::granite};
constexpr gf::config gpt_oss{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::gpt_oss};
constexpr gf::config uniform{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::uniform};
constexpr gf::config hash{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::hash};
constexpr gf::config sampled{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::sampled};
template void step<granite>(gf::context<gf::cpu>&, const gf::weights<gf::layer<granite, float>>&,
                            const gf::batch<gf::layer<granite, float>>&, gf::view<const float, gf::dyn, 16>,
                            gf::view<float, gf::dyn, 16>, gf::view<float, gf::dyn, 16>,
                            gf::tape<gf::layer<granite, float>>&, gf::gradients<gf::layer<granite, float>>&);
template void step<gpt_oss>(gf::context<gf::cpu>&, const gf::weights<gf::layer<gpt_oss, float>>&,
                            const gf::batch<gf::layer<gpt_oss, float>>&, gf::view<const float, gf::dyn, 16>,
                            gf::view<float, gf::dyn, 16>, gf::view<float, gf::dyn, 16>,
                            gf::tape<gf::layer<gpt_oss, float>>&, gf::gradients<gf::layer<gpt_oss, float>>&);
template void step<uniform>(gf::context<gf::cpu>&, const gf::weights<gf::layer<uniform, float>>&,
                            const gf::batch<gf::layer<uniform, float>>&, gf::view<const float, gf::dyn, 16>,
                            gf::view<float, gf::dyn, 16>, gf::view<float, gf::dyn, 16>,
                            gf::tape<gf::layer<uniform, float>>&, gf::gradients<gf::layer<uniform, float>>&);
template void step<hash>(gf::context<gf::cpu>&, const gf::weights<gf::layer<hash, float>>&,
                         const gf::batch<gf::layer<hash, float>>&, gf::view<const float, gf::dyn, 16>,
                         gf::view<float, gf::dyn, 16>, gf::view<float, gf::dyn, 16>, gf::tape<gf::layer<hash, float>>&,
                         gf::gradients<gf::layer<hash, float>>&);
template void step<sampled>(gf::context<gf::cpu>&, const gf::weights<gf::layer<sampled, float>>&,
                            const gf::batch<gf::layer<sampled, float>>&, gf::view<const float, gf::dyn, 16>,
                            gf::view<float, gf::dyn, 16>, gf::view<float, gf::dyn, 16>,
                            gf::tape<gf::layer<sampled, float>>&, gf::gradients<gf::layer<sampled, float>>&);
