// gpt-oss-120b at its own widths, with 8 of its 128 experts: 2880 is whole sectors and whole strips, which 360 is not.
#include <gatefold/models/gpt_oss.hpp>

#include "budget.cuh"

budget::facts budget::gpt_oss_whole(std::int64_t tokens, bool calls) {
    constexpr gf::config few = gf::with(gf::models::gpt_oss_120b.layer, &gf::config::experts, 8);
    return run<gf::layer<few, gf::bf16>>(tokens, calls);
}
