// OLMoE at its own widths: what the eighths cannot show is how every kernel, also the small ones, uses its sectors.
#include <gatefold/models/olmoe.hpp>

#include "budget.cuh"

budget::facts budget::olmoe_whole(std::int64_t tokens, bool calls) {
    return run<gf::layer<gf::models::olmoe_1b_7b.layer, gf::bf16>>(tokens, calls);
}
