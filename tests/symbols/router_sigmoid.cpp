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
#include "step.hpp"

constexpr gf::config glm4_moe{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::glm4_moe};
constexpr gf::config minimax_m2{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::minimax_m2};
constexpr gf::config minimax_m3{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::minimax_m3};
constexpr gf::config lfm2{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::lfm2};
constexpr gf::config llama4{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 1, .router = gf::routers::llama4};
constexpr gf::config deepseek_v4{.hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::deepseek_v4};
constexpr gf::config deepseek_v4_hash{
    .hidden = 16, .ffn = 8, .experts = 8, .top_k = 2, .router = gf::routers::deepseek_v4_hash};
template struct training_step<glm4_moe>;
template struct training_step<minimax_m2>;
template struct training_step<minimax_m3>;
template struct training_step<lfm2>;
template struct training_step<llama4>;
template struct training_step<deepseek_v4>;
template struct training_step<deepseek_v4_hash>;
