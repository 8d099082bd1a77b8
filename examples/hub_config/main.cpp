// From a Hugging Face config.json to the configuration of its mixture-of-experts block, ready to paste.
//
//     hub_config CONFIG.json     the literal, and what the block costs
//     hub_config --families      the model types it knows
//
// Fields that it does not know, that are missing or that contradict each other are errors: a guess would make a model
// that runs and answers nonsense.
// ctest: --families
#include <cstdio>
#include <fstream>
#include <string>

#include <gatefold/moe/accounting.hpp>

#include "block.hpp"

namespace gf = gatefold;

namespace {

void print(const char* what, long long value, const char* unit = "") {
    std::printf("%-22s %lld%s\n", what, value, unit);
}

void print(const hub_config::block& b) {
    const gf::config& c = b.c;
    std::printf("// %s: %d of %d layers\n%s\n\n", b.family.c_str(), gf::is_dense(c) ? b.layers : b.sparse, b.layers,
                hub_config::literal_of(c, b.family).c_str());
    const int visited = gf::is_dense(c) ? 1 : (c.top_k < c.experts ? c.top_k : c.experts);
    print("parameters", gf::parameters(c));
    print("active per token", gf::active_parameters(c));
    if (b.sparse > 0) print("in all such layers", b.sparse * gf::parameters(c));
    print("FLOPs per token", gf::flops(c));
    print("bytes of one token", gf::minimum_bytes(c, 1, visited, 2), " (bf16: its experts, router and shared weights)");
    print("bytes of all weights", 2 * gf::parameters(c), " (bf16)");
    for (const std::string& note : b.notes) std::printf("note: %s\n", note.c_str());
}

}  // namespace

int main(int count, char** arguments) {
    const std::string argument = count == 2 ? arguments[1] : "";
    if (argument == "--families") {
        for (const std::string& name : hub_config::families()) std::printf("%s\n", name.c_str());
        return 0;
    }
    if (argument.empty() || argument.starts_with("--")) {
        std::fprintf(stderr, "usage: hub_config CONFIG.json | --families\n");
        return 2;
    }
    std::ifstream file(argument);
    if (!file) {
        std::fprintf(stderr, "hub_config: cannot open %s\n", argument.c_str());
        return 1;
    }
    try {
        print(hub_config::read_block(nlohmann::json::parse(file)));
    } catch (const std::exception& e) {
        std::fprintf(stderr, "hub_config: %s: %s\n", argument.c_str(), e.what());
        return 1;
    }
    return 0;
}
