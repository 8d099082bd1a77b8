// An expert of Mixtral at an eighth of its widths, alone: a plain FFN.
#include "budget.cuh"

budget::facts budget::dense(std::int64_t tokens, bool calls) {
    return run<gf::layer<gf::config{.hidden = 512, .ffn = 1792}, gf::bf16>>(tokens, calls);
}
