// Mixtral-8x7B: few large experts, 5.6 GB in float.
#include "stages.hpp"

namespace bench {

void register_mixtral() {
    register_model<config{.hidden = 4096, .ffn = 14336, .experts = 8, .top_k = 2, .router = routers::mixtral}>(
        "mixtral");
}

}  // namespace bench
