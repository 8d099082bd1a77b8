// Qwen3-30B-A3B: many small experts, 2.4 GB in float.
#include "stages.hpp"

namespace bench {

void register_qwen3() {
    register_model<config{.hidden = 2048, .ffn = 768, .experts = 128, .top_k = 8, .router = routers::qwen3}>("qwen3");
}

}  // namespace bench
