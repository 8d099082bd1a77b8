// Qwen1.5-MoE at an eighth of its widths: 60 experts, 4 per token, a gated shared expert of four times their width.
#include <gatefold/models/qwen.hpp>

#include "budget.cuh"

budget::facts budget::qwen2(std::int64_t tokens, bool calls) {
    return run<gf::layer<eighth(gf::models::qwen1_5_moe_a2_7b.layer), gf::bf16>>(tokens, calls);
}
