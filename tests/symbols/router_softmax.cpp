// Routers that only project and take the best of a softmax.
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

constexpr gf::config mixtral{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::mixtral};
constexpr gf::config olmoe{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::olmoe};
constexpr gf::config deepseek_moe{
    .hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::deepseek_moe};
constexpr gf::config dbrx{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::dbrx};
constexpr gf::config hunyuan{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::hunyuan};
constexpr gf::config ernie{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::ernie};
constexpr gf::config st_moe{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::st_moe};
template void step<mixtral>(gf::context<gf::cpu>&, const gf::weights<gf::layer<mixtral, float>>&,
                            const gf::batch<gf::layer<mixtral, float>>&, gf::view<const float, gf::dyn, 16>,
                            gf::view<float, gf::dyn, 16>, gf::view<float, gf::dyn, 16>,
                            gf::tape<gf::layer<mixtral, float>>&, gf::gradients<gf::layer<mixtral, float>>&);
template void step<olmoe>(gf::context<gf::cpu>&, const gf::weights<gf::layer<olmoe, float>>&,
                          const gf::batch<gf::layer<olmoe, float>>&, gf::view<const float, gf::dyn, 16>,
                          gf::view<float, gf::dyn, 16>, gf::view<float, gf::dyn, 16>,
                          gf::tape<gf::layer<olmoe, float>>&, gf::gradients<gf::layer<olmoe, float>>&);
template void step<deepseek_moe>(gf::context<gf::cpu>&, const gf::weights<gf::layer<deepseek_moe, float>>&,
                                 const gf::batch<gf::layer<deepseek_moe, float>>&, gf::view<const float, gf::dyn, 16>,
                                 gf::view<float, gf::dyn, 16>, gf::view<float, gf::dyn, 16>,
                                 gf::tape<gf::layer<deepseek_moe, float>>&,
                                 gf::gradients<gf::layer<deepseek_moe, float>>&);
template void step<dbrx>(gf::context<gf::cpu>&, const gf::weights<gf::layer<dbrx, float>>&,
                         const gf::batch<gf::layer<dbrx, float>>&, gf::view<const float, gf::dyn, 16>,
                         gf::view<float, gf::dyn, 16>, gf::view<float, gf::dyn, 16>, gf::tape<gf::layer<dbrx, float>>&,
                         gf::gradients<gf::layer<dbrx, float>>&);
template void step<hunyuan>(gf::context<gf::cpu>&, const gf::weights<gf::layer<hunyuan, float>>&,
                            const gf::batch<gf::layer<hunyuan, float>>&, gf::view<const float, gf::dyn, 16>,
                            gf::view<float, gf::dyn, 16>, gf::view<float, gf::dyn, 16>,
                            gf::tape<gf::layer<hunyuan, float>>&, gf::gradients<gf::layer<hunyuan, float>>&);
template void step<ernie>(gf::context<gf::cpu>&, const gf::weights<gf::layer<ernie, float>>&,
                          const gf::batch<gf::layer<ernie, float>>&, gf::view<const float, gf::dyn, 16>,
                          gf::view<float, gf::dyn, 16>, gf::view<float, gf::dyn, 16>,
                          gf::tape<gf::layer<ernie, float>>&, gf::gradients<gf::layer<ernie, float>>&);
static_assert(st_moe == deepseek_moe);
