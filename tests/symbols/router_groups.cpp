// Routers limited to groups.
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

constexpr gf::config deepseek_v2{.hidden = 16, .ffn = 8, .experts = 16, .top_k = 2, .router = gf::routers::deepseek_v2};
constexpr gf::config deepseek_v3{.hidden = 16, .ffn = 8, .experts = 16, .top_k = 2, .router = gf::routers::deepseek_v3};
template struct training_step<deepseek_v2>;
template struct training_step<deepseek_v3>;
