// gpt-oss-20b: biases, clamped activation, widths that are no power of two; 3.2 GB in float.
#include "stages.hpp"

namespace bench {

void register_gptoss() {
    register_model<config{.hidden = 2880,
                          .ffn = 2880,
                          .experts = 32,
                          .top_k = 4,
                          .act = activation::clamped_swiglu,
                          .limit = 7,
                          .bias = true,
                          .router = routers::gpt_oss}>("gptoss");
}

}  // namespace bench
