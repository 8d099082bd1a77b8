// Named routers with a softmax over the chosen experts, and those with a sigmoid or its like.
#include "measure.hpp"

namespace routers_example {

namespace r = gf::routers;

void softmax_over_chosen_and_sigmoid(table& t) {
    t.add<r::granite, 8>("granite");
    t.add<r::gpt_oss, 4>("gpt_oss");
    t.add<r::deepseek_v3, 8>("deepseek_v3");
    t.add<r::glm4_moe, 8>("glm4_moe");
    t.add<r::glm4_air, 8>("glm4_air");
    t.add<r::mimo_v2, 8>("mimo_v2");
    t.add<r::kimi_k3, 16>("kimi_k3");
    t.add<r::nemotron3, 6>("nemotron3");
    t.add<r::nemotron3_super, 8>("nemotron3_super");
    t.add<r::kimi_k2, 8>("kimi_k2");
    t.add<r::step3, 8>("step3");
    t.add<r::minimax_m2, 8>("minimax_m2");
    t.add<r::minimax_m3, 4>("minimax_m3");
    t.add<r::lfm2, 4>("lfm2");
    t.add<r::llama4, 1>("llama4");
    t.add<r::deepseek_v4, 6>("deepseek_v4");
    t.add<r::deepseek_v4_hash, 6>("deepseek_v4_hash");
}

}  // namespace routers_example
