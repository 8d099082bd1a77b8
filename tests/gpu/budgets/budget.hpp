// One forward call of one layer, for the counters of the emulator (../budgets.py): what the layers' files and main
// share.
#pragma once

#include <cstdint>

namespace budget {

/// What a call cannot do without.
struct facts {
    std::int64_t active_experts = 1, minimum_bytes = 0, useful_flops = 0;
};

// One per file of this folder. With `calls` the call is made, without it only its facts are found.
facts mixtral(std::int64_t tokens, bool calls);
facts qwen3(std::int64_t tokens, bool calls);
facts deepseek_v3(std::int64_t tokens, bool calls);
facts gpt_oss(std::int64_t tokens, bool calls);
facts gpt_oss_whole(std::int64_t tokens, bool calls);
facts olmoe(std::int64_t tokens, bool calls);
facts olmoe_whole(std::int64_t tokens, bool calls);
facts qwen3_unordered(std::int64_t tokens, bool calls);
facts qwen2(std::int64_t tokens, bool calls);
facts dense(std::int64_t tokens, bool calls);

}  // namespace budget
