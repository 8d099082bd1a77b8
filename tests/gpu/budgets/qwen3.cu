// Qwen3-30B at an eighth of its widths: 128 experts, 8 per token.
#include <gatefold/models/qwen.hpp>

#include "budget.cuh"

budget::facts budget::qwen3(std::int64_t tokens, bool calls) {
    return run<gf::layer<eighth(gf::models::qwen3_30b_a3b.layer), gf::bf16>>(tokens, calls);
}
