// gpt-oss-120b at an eighth of its widths, 360, which no tile divides: 128 experts, 4 per token, biases.
#include <gatefold/models/gpt_oss.hpp>

#include "budget.cuh"

budget::facts budget::gpt_oss(std::int64_t tokens, bool calls) {
    return run<gf::layer<eighth(gf::models::gpt_oss_120b.layer), gf::bf16>>(tokens, calls);
}
