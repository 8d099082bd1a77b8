// Mixtral at an eighth of its widths: 8 experts, 2 per token.
#include <gatefold/models/mixtral.hpp>

#include "budget.cuh"

budget::facts budget::mixtral(std::int64_t tokens, bool calls) {
    return run<gf::layer<eighth(gf::models::mixtral_8x7b.layer), gf::bf16>>(tokens, calls);
}
