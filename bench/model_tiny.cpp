// A layer that fits the second-level cache: 12.6 MB in float.
#include "stages.hpp"

namespace bench {

void register_tiny() {
    register_model<config{.hidden = 256, .ffn = 512, .experts = 8, .top_k = 2, .router = routers::mixtral}>("tiny");
}

}  // namespace bench
