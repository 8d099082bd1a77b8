// OLMoE-1B-7B: 1.6 GB in float.
#include "stages.hpp"

namespace bench {

void register_olmoe() {
    register_model<config{.hidden = 2048, .ffn = 1024, .experts = 64, .top_k = 8, .router = routers::olmoe}>("olmoe");
}

}  // namespace bench
