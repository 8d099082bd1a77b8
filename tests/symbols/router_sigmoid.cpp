// Routers of sigmoid scores and their like.
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

constexpr gf::config glm4_moe{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::glm4_moe};
constexpr gf::config minimax_m2{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::minimax_m2};
constexpr gf::config minimax_m3{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::minimax_m3};
constexpr gf::config lfm2{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::lfm2};
constexpr gf::config llama4{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 1, .router = gf::routers::llama4};
constexpr gf::config deepseek_v4{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::deepseek_v4};
constexpr gf::config deepseek_v4_hash{
    .hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::deepseek_v4_hash};
template void step<glm4_moe>(gf::context<gf::cpu>&, const gf::weights<gf::layer<glm4_moe, float>>&,
                             const gf::batch<gf::layer<glm4_moe, float>>&, gf::view<const float, gf::dyn, 16>,
                             gf::view<float, gf::dyn, 16>, gf::view<float, gf::dyn, 16>,
                             gf::tape<gf::layer<glm4_moe, float>>&, gf::gradients<gf::layer<glm4_moe, float>>&);
template void step<minimax_m2>(gf::context<gf::cpu>&, const gf::weights<gf::layer<minimax_m2, float>>&,
                               const gf::batch<gf::layer<minimax_m2, float>>&, gf::view<const float, gf::dyn, 16>,
                               gf::view<float, gf::dyn, 16>, gf::view<float, gf::dyn, 16>,
                               gf::tape<gf::layer<minimax_m2, float>>&, gf::gradients<gf::layer<minimax_m2, float>>&);
template void step<minimax_m3>(gf::context<gf::cpu>&, const gf::weights<gf::layer<minimax_m3, float>>&,
                               const gf::batch<gf::layer<minimax_m3, float>>&, gf::view<const float, gf::dyn, 16>,
                               gf::view<float, gf::dyn, 16>, gf::view<float, gf::dyn, 16>,
                               gf::tape<gf::layer<minimax_m3, float>>&, gf::gradients<gf::layer<minimax_m3, float>>&);
template void step<lfm2>(gf::context<gf::cpu>&, const gf::weights<gf::layer<lfm2, float>>&,
                         const gf::batch<gf::layer<lfm2, float>>&, gf::view<const float, gf::dyn, 16>,
                         gf::view<float, gf::dyn, 16>, gf::view<float, gf::dyn, 16>, gf::tape<gf::layer<lfm2, float>>&,
                         gf::gradients<gf::layer<lfm2, float>>&);
template void step<llama4>(gf::context<gf::cpu>&, const gf::weights<gf::layer<llama4, float>>&,
                           const gf::batch<gf::layer<llama4, float>>&, gf::view<const float, gf::dyn, 16>,
                           gf::view<float, gf::dyn, 16>, gf::view<float, gf::dyn, 16>,
                           gf::tape<gf::layer<llama4, float>>&, gf::gradients<gf::layer<llama4, float>>&);
template void step<deepseek_v4>(gf::context<gf::cpu>&, const gf::weights<gf::layer<deepseek_v4, float>>&,
                                const gf::batch<gf::layer<deepseek_v4, float>>&, gf::view<const float, gf::dyn, 16>,
                                gf::view<float, gf::dyn, 16>, gf::view<float, gf::dyn, 16>,
                                gf::tape<gf::layer<deepseek_v4, float>>&,
                                gf::gradients<gf::layer<deepseek_v4, float>>&);
template void step<deepseek_v4_hash>(gf::context<gf::cpu>&, const gf::weights<gf::layer<deepseek_v4_hash, float>>&,
                                     const gf::batch<gf::layer<deepseek_v4_hash, float>>&,
                                     gf::view<const float, gf::dyn, 16>, gf::view<float, gf::dyn, 16>,
                                     gf::view<float, gf::dyn, 16>, gf::tape<gf::layer<deepseek_v4_hash, float>>&,
                                     gf::gradients<gf::layer<deepseek_v4_hash, float>>&);
