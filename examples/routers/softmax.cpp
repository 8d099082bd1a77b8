// Named routers whose scores are a softmax over all experts.
#include "measure.hpp"

namespace routers_example {

namespace r = gf::routers;

void softmax_over_all(table& t) {
    t.add<r::mixtral, 2>("mixtral");
    t.add<r::qwen3, 8>("qwen3");
    t.add<r::qwen3_next, 10>("qwen3_next");
    t.add<r::minimax_01, 2>("minimax_01");
    t.add<r::arctic, 2>("arctic");
    t.add<r::olmoe, 8>("olmoe");
    t.add<r::qwen2_moe, 4>("qwen2_moe");
    t.add<r::qwen2, 8>("qwen2");
    t.add<r::jamba, 2>("jamba");
    t.add<r::deepseek_moe, 6>("deepseek_moe");
    t.add<r::deepseek_v2_lite, 6>("deepseek_v2_lite");
    t.add<r::grok, 2>("grok");
    t.add<r::deepseek_v2, 6>("deepseek_v2");
    t.add<r::dbrx, 4>("dbrx");
    t.add<r::hunyuan, 8>("hunyuan");
    t.add<r::ernie, 6>("ernie");
    t.add<r::gemma4, 8>("gemma4");
    t.add<r::longcat, 6, {.copy = 4}>("longcat");
    t.add<r::moe_plus_plus, 2, {.constant = 2, .copy = 1, .zero = 1}>("moe_plus_plus");
}

}  // namespace routers_example
