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
#include <iterator>
#include <string>

#include <gatefold/moe/accounting.hpp>

#include "block.hpp"

namespace gf = gatefold;

namespace {

void print(const char* what, long long value, const char* unit = "") {
    std::printf("%-24s %lld%s\n", what, value, unit);
}

void print(const hub_config::block& b) {
    const gf::config& c = b.c;
    const int layers = gf::is_dense(c) ? b.layers : b.sparse;
    const int visited = gf::is_dense(c) ? 1 : (gf::slots(c) < c.experts ? gf::slots(c) : c.experts);
    std::printf("// %s: %d of %d layers\n%s\n\n", b.family.c_str(), layers, b.layers,
                hub_config::literal_of(c, b.family).c_str());
    print("parameters", gf::parameters(c), " a layer");
    print("active parameters", gf::active_parameters(c), " a layer and token");
    print("parameters, all", layers * gf::parameters(c));
    print("active parameters, all", layers * gf::active_parameters(c));
    print("FLOPs", gf::flops(c), " a layer and token");
    print("bytes", gf::minimum_bytes(c, 1, visited, 2), " a layer and token (bf16; weights, input and output once)");
    print("bytes of weights", 2 * gf::parameters(c), " a layer (bf16)");
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
        const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
        print(hub_config::read_block(hub_config::parse_config(text)));
    } catch (const std::exception& e) {
        std::fprintf(stderr, "hub_config: %s: %s\n", argument.c_str(), e.what());
        return 1;
    }
    return 0;
}
