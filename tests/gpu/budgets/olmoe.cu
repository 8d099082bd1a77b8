// OLMoE at an eighth of its widths: 64 experts, 8 per token.
#include <gatefold/models/olmoe.hpp>

#include "budget.cuh"

budget::facts budget::olmoe(std::int64_t tokens, bool calls) {
    return run<gf::layer<eighth(gf::models::olmoe_1b_7b.layer), gf::bf16>>(tokens, calls);
}
