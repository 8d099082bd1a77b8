// DeepSeek-V3 at an eighth of its widths: 256 experts in groups, 8 per token, and a shared one.
#include <gatefold/models/deepseek.hpp>

#include "budget.cuh"

budget::facts budget::deepseek_v3(std::int64_t tokens, bool calls) {
    return run<gf::layer<eighth(gf::models::deepseek_v3.layer), gf::bf16>>(tokens, calls);
}
