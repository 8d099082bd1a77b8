// examples/hub_config over the configurations of the golden models: the values that the block tests are made of,
// literals that compile to the same value, and what is refused.
#include <fstream>

#include <examples/hub_config/families.cpp>
#include <examples/hub_config/literal.cpp>
#include <nlohmann/json.hpp>

#include "block_comparison.hpp"

namespace {

namespace gf = gatefold;
using nlohmann::json;

json read_config(const std::string& path) {
    std::ifstream file(path + "/config.json");
    return json::parse(file);
}

template <const auto& Cases>
void check_configurations() {
    for (const auto& one : Cases) {
        const std::string folder = block_comparison::golden_path("models/" + std::string(one.folder));
        if (folder.empty()) return;
        try {
            const hub_config::block b = hub_config::read_block(read_config(folder));
            BOOST_TEST((b.c == one.c), one.folder << ": " << hub_config::literal_of(b.c, b.family) << "\nexpected "
                                                  << hub_config::literal_of(one.c, b.family));
            BOOST_TEST(b.per_sequence == (one.row > 0), one.folder);
            BOOST_TEST(b.sparse >= 1, one.folder);
        } catch (const std::exception& e) {
            BOOST_ERROR(one.folder << ": " << e.what());
        }
    }
}

/// What is wrong with a configuration, or "".
std::string complaint(const json& config) {
    try {
        hub_config::read_block(config);
    } catch (const hub_config::config_fault& e) {
        return e.what();
    }
    return "";
}

json mixtral() {
    return {{"model_type", "mixtral"}, {"hidden_size", 4096},       {"intermediate_size", 14336},
            {"num_local_experts", 8},  {"num_experts_per_tok", 2},  {"hidden_act", "silu"},
            {"num_hidden_layers", 32}, {"router_jitter_noise", 0.0}};
}

json with_field(json config, const char* name, json value) {
    config[name] = std::move(value);
    return config;
}
json without(json config, const char* name) {
    config.erase(name);
    return config;
}

}  // namespace

/// The text of an expression beside its value; spaces apart, they must be the same.
#define GATEFOLD_CHECK_LITERAL(family, ...)                                                                        \
    do {                                                                                                           \
        const auto without_spaces = [](std::string s) {                                                            \
            std::erase(s, ' ');                                                                                    \
            return s;                                                                                              \
        };                                                                                                         \
        BOOST_TEST(without_spaces(::hub_config::literal_of(__VA_ARGS__, family)) == without_spaces(#__VA_ARGS__)); \
    } while (false)

BOOST_AUTO_TEST_SUITE(golden)
BOOST_AUTO_TEST_SUITE(hub_config)

BOOST_AUTO_TEST_CASE(every_golden_block_is_read_as_its_test_has_it) {
    check_configurations<block_cases::softmax_models>();
    check_configurations<block_cases::unscaled_models>();
    check_configurations<block_cases::sigmoid_models>();
    check_configurations<block_cases::other_models>();
}

BOOST_AUTO_TEST_CASE(dense_models_are_dense_layers) {
    for (const char* name : {"llama", "mistral", "qwen3", "smollm3", "gemma3"}) {
        const std::string folder = block_comparison::golden_path("models/" + std::string(name));
        if (folder.empty()) return;
        const ::hub_config::block b = ::hub_config::read_block(read_config(folder));
        BOOST_TEST(gf::is_dense(b.c), name);
        BOOST_TEST(b.sparse == 0, name);
    }
}

BOOST_AUTO_TEST_CASE(literals_compile_to_the_same_value) {
    GATEFOLD_CHECK_LITERAL(
        "mixtral", gf::config{.hidden = 4096, .ffn = 14336, .experts = 8, .top_k = 2, .router = gf::routers::mixtral});
    GATEFOLD_CHECK_LITERAL("", gf::config{.hidden = 64, .ffn = 96, .act = gf::activation::geglu_tanh});
    GATEFOLD_CHECK_LITERAL("deepseek_v3",
                           gf::config{.hidden = 64,
                                      .ffn = 20,
                                      .experts = 16,
                                      .top_k = 4,
                                      .router = gf::with(gf::routers::deepseek_v3, &gf::router_config::groups, 4,
                                                         &gf::router_config::kept_groups, 2),
                                      .shared = {.ffn = 20}});
    GATEFOLD_CHECK_LITERAL("kimi_linear",
                           gf::config{.hidden = 64,
                                      .ffn = 12,
                                      .experts = 8,
                                      .top_k = 3,
                                      .router = gf::with(gf::routers::kimi_k2, &gf::router_config::scale, 2.446),
                                      .shared = {.ffn = 12}});
    GATEFOLD_CHECK_LITERAL("minimax_m3",
                           gf::config{.hidden = 64,
                                      .ffn = 16,
                                      .experts = 8,
                                      .top_k = 3,
                                      .act = gf::activation::clamped_swiglu,
                                      .limit = 7,
                                      .router = gf::routers::minimax_m3,
                                      .shared = {.ffn = 20, .act = gf::activation::clamped_swiglu, .limit = 7}});
    GATEFOLD_CHECK_LITERAL(
        "switch_transformers",
        gf::config{
            .hidden = 64,
            .ffn = 48,
            .experts = 4,
            .act = gf::activation::relu,
            .router = gf::with(gf::routers::switch_transformer, &gf::router_config::noise, 0),
            .capacity = {.rule = gf::capacity_rule::fixed, .rows = 5, .shared_by = gf::capacity_group::sequence}});
    GATEFOLD_CHECK_LITERAL(
        "longcat_flash",
        gf::config{
            .hidden = 64, .ffn = 14, .experts = 8, .top_k = 4, .router = gf::routers::longcat, .free = {.copy = 4}});
    GATEFOLD_CHECK_LITERAL("nemotron_h", gf::config{.hidden = 64,
                                                    .ffn = 24,
                                                    .experts = 8,
                                                    .top_k = 3,
                                                    .act = gf::activation::relu_squared,
                                                    .router = gf::routers::nemotron3,
                                                    .shared = {.ffn = 40, .act = gf::activation::relu_squared},
                                                    .latent = 32});
}

BOOST_AUTO_TEST_CASE(nothing_is_guessed) {
    BOOST_TEST(complaint(mixtral()) == "");
    BOOST_TEST(complaint(with_field(mixtral(), "moe_magic", 3)) == "moe_magic: unknown to mixtral");
    BOOST_TEST(complaint(without(mixtral(), "num_local_experts")) == "num_local_experts: missing");
    BOOST_TEST(complaint(with_field(mixtral(), "num_experts", 16)) ==
               "num_experts: contradicts num_local_experts (16 and 8)");
    BOOST_TEST(complaint(with_field(mixtral(), "num_experts", 8)) == "");
    BOOST_TEST(complaint(with_field(mixtral(), "hidden_size", "wide")) ==
               "hidden_size: expected a whole number of at least 1, got \"wide\"");
    BOOST_TEST(complaint(with_field(mixtral(), "num_experts_per_tok", 9)) ==
               "num_experts_per_tok: more experts per token than there are");
    BOOST_TEST(complaint(with_field(mixtral(), "hidden_act", "quick_gelu")) ==
               "hidden_act: no gated activation of the library is called quick_gelu");
    BOOST_TEST(complaint(with_field(mixtral(), "model_type", "mixtrel")) ==
               "model_type: no family of this reader is called \"mixtrel\"");
    BOOST_TEST(complaint(json::array()) == "config: expected a JSON object, got array");
    // Several faults in one message.
    BOOST_TEST(complaint(without(with_field(mixtral(), "extra", 1), "intermediate_size")) ==
               "intermediate_size: missing\nextra: unknown to mixtral");
    // Decoders of models that see.
    BOOST_TEST(complaint({{"model_type", "outer"}, {"text_config", mixtral()}}) == "");
}

BOOST_AUTO_TEST_CASE(fields_with_one_meaning_only) {
    const std::string folder = block_comparison::golden_path("models/deepseek_v3"),
                      v2 = block_comparison::golden_path("models/deepseek_v2"),
                      oss = block_comparison::golden_path("models/gpt_oss");
    if (folder.empty() || v2.empty() || oss.empty()) return;
    const json c = read_config(folder);
    BOOST_TEST(complaint(c) == "");
    BOOST_TEST(complaint(with_field(c, "scoring_func", "softmax")) ==
               "scoring_func: expected \"sigmoid\", got \"softmax\"");
    BOOST_TEST(complaint(with_field(c, "topk_group", 5)) == "topk_group: more groups kept than n_group");
    BOOST_TEST(complaint(with_field(c, "n_group", 3)) == "n_group: the experts are no multiple of it");
    BOOST_TEST(complaint(with_field(c, "moe_layer_freq", 2)) == "moe_layer_freq: expected 1, got 2");
    BOOST_TEST(complaint(without(c, "routed_scaling_factor")) == "routed_scaling_factor: missing");
    BOOST_TEST(complaint(with_field(read_config(v2), "norm_topk_prob", true)) ==
               "norm_topk_prob: expected false, got true");
    BOOST_TEST(complaint(with_field(read_config(oss), "swiglu_alpha", 1.5)) == "swiglu_alpha: expected 1.702, got 1.5");
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
