// budgets NAME TOKENS: one call. With a third argument: what that call cannot do without, as JSON.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "budget.hpp"

int main(int argc, char** argv) {
    struct entry {
        const char* name;
        budget::facts (*run)(std::int64_t, bool);
    };
    constexpr entry entries[] = {
        {"mixtral", budget::mixtral},
        {"qwen3", budget::qwen3},
        {"deepseek_v3", budget::deepseek_v3},
        {"gpt_oss", budget::gpt_oss},
        {"olmoe", budget::olmoe},
        {"olmoe_whole", budget::olmoe_whole},
        {"qwen2", budget::qwen2},
        {"dense", budget::dense},
        {"gpt_oss_whole", budget::gpt_oss_whole},
        {"qwen3_unordered", budget::qwen3_unordered},
    };
    if (argc < 3) return std::fprintf(stderr, "usage: budgets NAME TOKENS [facts]\n"), 2;
    const std::int64_t tokens = std::atoll(argv[2]);
    const bool calls = argc == 3;
    for (const entry& e : entries) {
        if (std::strcmp(argv[1], e.name) != 0) continue;
        const budget::facts f = e.run(tokens, calls);
        if (!calls)
            std::printf("{\"active\": %lld, \"minimum_bytes\": %lld, \"useful_flops\": %lld}\n",
                        static_cast<long long>(f.active_experts), static_cast<long long>(f.minimum_bytes),
                        static_cast<long long>(f.useful_flops));
        return 0;
    }
    return std::fprintf(stderr, "budgets: no layer %s\n", argv[1]), 2;
}
