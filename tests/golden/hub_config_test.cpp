// examples/hub_config: what it reads and what it refuses, and literals that compile to the same value. That it reads
// the configurations of the golden models right is seen in the tests that block_generator writes.
#include <array>
#include <fstream>
#include <string>

#include <examples/hub_config/block.hpp>
#include <examples/hub_config/fields.hpp>
#include <nlohmann/json.hpp>

#include <gatefold/moe/accounting.hpp>

#include "golden_path.hpp"
#include "published_configs.hpp"

namespace {

namespace gf = gatefold;
using golden_data::golden_path;
using nlohmann::json;

json read_config(const std::string& path) {
    std::ifstream file(path + "/config.json");
    return json::parse(file);
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

/// The same of a text.
std::string complaint_of_text(const std::string& text) {
    try {
        hub_config::read_block(hub_config::parse_config(text));
    } catch (const hub_config::config_fault& e) {
        return e.what();
    }
    return "";
}

/// What a configuration costs, in all functions of it.
struct costs {
    gf::index_t parameters, active, router, common, flops, bytes, largest, rows, tokens;
    double experts;
    bool operator==(const costs&) const = default;
};
constexpr costs costs_of(const gf::config& c) {
    return {gf::parameters(c),  gf::active_parameters(c),         gf::router_parameters(c),   gf::common_parameters(c),
            gf::flops(c),       gf::minimum_bytes(c, 7, 3, 2, 4), gf::largest_index(c, 1000), gf::max_rows(c, 1000),
            gf::most_tokens(c), gf::expected_experts(c, 9)};
}
constexpr auto published_costs = [] {
    std::array<costs, std::size(published_configs::all)> all{};
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = costs_of(published_configs::all[i].c);
    return all;
}();

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

BOOST_AUTO_TEST_CASE(dense_models_are_dense_layers) {
    for (const char* name : {"llama", "mistral", "qwen3", "smollm3", "gemma3"}) {
        const std::string folder = golden_path("models/" + std::string(name));
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

BOOST_AUTO_TEST_CASE(published_models_come_out_as_published) {
    std::size_t i = 0;
    for (const auto& one : published_configs::all) {
        BOOST_TEST_CONTEXT(one.name) {
            const ::hub_config::block b = ::hub_config::read_block(::hub_config::parse_config(one.text));
            BOOST_TEST((b.c == one.c), ::hub_config::literal_of(b.c, b.family)
                                           << "\nexpected " << ::hub_config::literal_of(one.c, b.family));
            BOOST_TEST(b.layers == one.layers);
            BOOST_TEST(b.sparse == one.sparse);
            if (one.inactive > 0)
                BOOST_TEST(b.sparse * (gf::parameters(b.c) - gf::active_parameters(b.c)) == one.inactive);
            // Of a value that was read the functions are what they are of a constant.
            BOOST_TEST((costs_of(b.c) == published_costs[i++]));
        }
    }
}

BOOST_AUTO_TEST_CASE(hostile_texts) {
    const auto with_text = [](const std::string& field) {
        std::string text = mixtral().dump();
        return text.insert(1, field + ",");
    };
    const auto replaced = [](const char* name, const std::string& value) {
        std::string text = without(mixtral(), name).dump();
        return text.insert(1, "\"" + std::string(name) + "\":" + value + ",");
    };
    BOOST_TEST(complaint_of_text(mixtral().dump()) == "");
    BOOST_TEST(complaint_of_text(with_text("\"rope_theta\": Infinity, \"rms_norm_eps\": -Infinity, \"dtype\": NaN")) ==
               "");
    BOOST_TEST(complaint_of_text(with_text("\"dtype\": \"Infinity \\\" NaN\"")) == "");
    BOOST_TEST(complaint_of_text(replaced("router_jitter_noise", "Infinity")) == "");  // as null: there is none
    BOOST_TEST(complaint_of_text(replaced("hidden_size", "NaN")) == "hidden_size: missing");
    BOOST_TEST(complaint_of_text(with_text("\"hidden_size\": 64")) == "hidden_size: stands there twice");
    const std::string whole = mixtral().dump();
    for (std::size_t n = 0; n < whole.size(); ++n)
        BOOST_TEST(complaint_of_text(whole.substr(0, n)).starts_with("config: not JSON"), n);
    for (const char* value :
         {"0", "-1", "1.5", "4e3", "\"4096\"", "true", "[]", "[4096, 4095]", "[[4096]]", "{}", "-9223372036854775808"})
        BOOST_TEST(complaint_of_text(replaced("hidden_size", value))
                       .starts_with("hidden_size: expected a whole number of at least 1, got "),
                   value);
    for (const char* value : {"1048577", "2147483647", "2147483648", "4294967297", "18446744073709551615"})
        BOOST_TEST(complaint_of_text(replaced("num_hidden_layers", value)) ==
                       "num_hidden_layers: expected a whole number of at most 1048576, got " + std::string(value),
                   value);
    for (const char* value : {"1e10", "-1e300", "\"0.1\"", "[0.1]"})
        BOOST_TEST(complaint_of_text(replaced("router_jitter_noise", value))
                       .starts_with("router_jitter_noise: expected a number of at most 1e9, got "),
                   value);
    BOOST_TEST(complaint_of_text(replaced("router_jitter_noise", "1e999")).starts_with("config: not JSON"));
    BOOST_TEST(complaint_of_text(replaced("hidden_act", "null")) == "hidden_act: missing");
    BOOST_TEST(
        complaint_of_text(replaced("hidden_act", "[\"silu\"]")).starts_with("hidden_act: expected a text, got "));
    // Extents that are each believable, and together more than an index counts.
    json large = mixtral();
    for (const char* name : {"hidden_size", "intermediate_size", "num_local_experts", "num_hidden_layers"})
        large[name] = 1 << 20;
    BOOST_TEST(complaint(large) == "config: more parameters than can be counted");
    std::string deep;
    for (int i = 0; i < 100000; ++i) deep += "[";
    BOOST_TEST(complaint_of_text(with_text("\"rope_scaling\":" + deep)) == "config: nested more than 16 deep");
    for (const char* text : {"", "null", "[]", "3", "\"mixtral\"", "{}", "{\"text_config\": 3}",
                             "{\"text_config\": {\"text_config\": {}}}", "{\"model_type\": 3}", "\xff\xfe"})
        BOOST_TEST(complaint_of_text(text) != "", text);
    // Long values do not make long messages.
    BOOST_TEST(complaint_of_text(replaced("hidden_size", "\"" + std::string(100000, 'x') + "\"")).size() < 400);
}

BOOST_AUTO_TEST_CASE(ways_of_counting_layers_must_agree) {
    const auto jamba = [] {
        return json{{"model_type", "jamba"},  {"hidden_size", 64},        {"intermediate_size", 32},
                    {"num_experts", 4},       {"num_experts_per_tok", 2}, {"hidden_act", "silu"},
                    {"num_hidden_layers", 4}, {"expert_layer_period", 2}, {"expert_layer_offset", 1}};
    };
    BOOST_TEST(complaint(jamba()) == "");
    BOOST_TEST(complaint(with_field(jamba(), "mlp_layer_types", {"dense", "sparse", "dense", "sparse"})) == "");
    BOOST_TEST(complaint(with_field(jamba(), "mlp_layer_types", {"dense", "sparse", "sparse", "sparse"})) ==
               "expert_layer_period: counts 2 blocks with experts, mlp_layer_types 3");
    BOOST_TEST(complaint(with_field(jamba(), "mlp_layer_types", {"dense", "sparse"}))
                   .starts_with("mlp_layer_types: expected one entry per layer, got 2"));
    BOOST_TEST(complaint(with_field(jamba(), "mlp_layer_types", "sparse"))
                   .starts_with("mlp_layer_types: expected a list, got \"sparse\""));
    BOOST_TEST(complaint(with_field(jamba(), "moe_layer_freq", {0, 1, 0, 1})) == "");
    BOOST_TEST(complaint(with_field(jamba(), "moe_layer_freq", {0, 1, 1, 1})) ==
               "moe_layer_freq: counts 3 blocks with experts, expert_layer_period 2");
    BOOST_TEST(complaint(with_field(jamba(), "first_k_dense_replace", 5))
                   .starts_with("first_k_dense_replace: contradicts num_hidden_layers"));
}

BOOST_AUTO_TEST_CASE(what_no_type_expresses_is_said_by_name) {
    const auto notes = [](const char* name) {
        for (const auto& one : published_configs::all)
            if (std::string(one.name) == name) {
                std::string text;
                for (const auto& note : ::hub_config::read_block(::hub_config::parse_config(one.text)).notes)
                    text += note + "\n";
                return text;
            }
        return std::string("no such model");
    };
    BOOST_TEST(notes("Mixtral 8x7B") == "");
    BOOST_TEST(notes("DeepSeek-V3") == "quantization_config \"fp8\": load_block decodes it\n");
    BOOST_TEST(notes("DeepSeek-V4-Pro") ==
               "3 layers take their experts from a table: routers::deepseek_v4_hash and batch::chosen\n"
               "expert_dtype fp4: load_block cannot decode it\n");
    BOOST_TEST(notes("Arctic") == "the dense residual branch is a layer of its own beside this one\n");
    BOOST_TEST(notes("Gemma-4-26B-A4B") ==
               "the router reads the residual (batch::router_x); the dense branch is a layer of its own\n");
}

BOOST_AUTO_TEST_CASE(fields_with_one_meaning_only) {
    const std::string folder = golden_path("models/deepseek_v3"), v2 = golden_path("models/deepseek_v2"),
                      oss = golden_path("models/gpt_oss");
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
