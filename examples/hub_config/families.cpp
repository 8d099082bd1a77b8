// From a model_type to the reader of its family.
#include <map>

#include "elsewhere.hpp"
#include "family.hpp"

namespace hub_config {

void dense(fields& f, block& b) {
    b.layers = f.integer("num_hidden_layers");
    f.expect("mlp_only_layers", nlohmann::json::array());
    b.c.hidden = f.integer("hidden_size");
    b.c.ffn = f.integer("intermediate_size");
    b.c.act = gated(f, f.has("hidden_activation") ? "hidden_activation" : "hidden_act");
    b.c.bias = f.flag_or("mlp_bias", false);
}

namespace {

/// load_block decodes FP8 with scales of 128 x 128 blocks and MXFP4; of other quantisations it is said by name.
void note_storage(fields& f, block& b) {
    const auto note = [&](const std::string& what, bool decoded) {
        b.notes.push_back(what + ": load_block " + (decoded ? "decodes it" : "cannot decode it"));
    };
    if (f.has("expert_dtype")) note("expert_dtype " + f.text("expert_dtype"), f.text("expert_dtype") != "fp4");
    if (!f.has("quantization_config")) return;
    const auto& q = f.at("quantization_config");
    const std::string method = q.is_object() ? q.value("quant_method", nlohmann::json("unnamed")).dump() : q.dump();
    const bool blocks = q.is_object() && q.value("weight_block_size", nlohmann::json()) == nlohmann::json({128, 128});
    note("quantization_config " + method, method == "\"mxfp4\"" || (method == "\"fp8\"" && blocks));
}

using reader = void (*)(fields&, block&);
const std::map<std::string, reader>& readers() {
    static const std::map<std::string, reader> all = {
        {"arctic", arctic},
        {"dbrx", dbrx},
        {"deepseek", deepseek},
        {"deepseek_v2", deepseek_v2},
        {"deepseek_v3", deepseek_v3},
        {"deepseek_v32", deepseek_v3},
        {"deepseek_v4", deepseek_v4},
        {"ernie4_5_moe", ernie},
        {"gemma3_text", dense},
        {"gemma4_text", gemma4},
        {"glm4_moe", deepseek_v3},
        {"glm4_moe_lite", deepseek_v3},
        {"glm_moe_dsa", deepseek_v3},
        {"gpt_oss", gpt_oss},
        {"granitemoe", granite},
        {"granitemoeshared", granite},
        {"grok-1", grok},
        {"hunyuan_v1_moe", hunyuan},
        {"jamba", jamba},
        {"kimi_k2", deepseek_v3},
        {"kimi_linear", kimi_linear},
        {"lfm2_moe", lfm2},
        {"llama", dense},
        {"llama4_text", llama4},
        {"longcat_flash", longcat},
        {"mimo_v2_flash", deepseek_v3},
        {"minimax", minimax_01},
        {"minimax_m1", minimax_01},
        {"minimax_m2", minimax_m2},
        {"minimax_m3", minimax_m3},
        {"minimax_m3_vl_text", minimax_m3},
        {"minimax_text_01", minimax_01},
        {"mistral", dense},
        {"mixtral", mixtral},
        {"nemotron_h", nemotron_h},
        {"nllb-moe", nllb},
        {"olmoe", olmoe},
        {"phimoe", phimoe},
        {"qwen2_moe", qwen},
        {"qwen3", dense},
        {"qwen3_5_moe_text", qwen},
        {"qwen3_5_text", dense},
        {"qwen3_moe", qwen},
        {"qwen3_next", qwen},
        {"qwen3_vl_moe_text", qwen},
        {"qwen3_vl_text", dense},
        {"smollm3", dense},
        {"step3p5", step3},
        {"step3p7", step3},
        {"switch_transformers", switch_transformers},
    };
    return all;
}

}  // namespace

std::vector<std::string> families() {
    std::vector<std::string> names;
    for (const auto& [name, read] : readers()) names.push_back(name);
    return names;
}

block read_block(const nlohmann::json& config) {
    // Models of text and pictures keep the decoder's part apart.
    if (config.is_object() && config.contains("text_config") && !config.at("text_config").contains("text_config"))
        return read_block(config.at("text_config"));
    fields f(config);
    block b;
    b.family = f.text("model_type");
    const auto found = readers().find(b.family);
    if (found == readers().end())
        throw config_fault("model_type: no family of this reader is called \"" + b.family + "\"");
    f.ignore(elsewhere);
    found->second(f, b);
    note_storage(f, b);
    f.finish(b.family);
    if (gf::is_dense(b.c)) {
        b.c.router = {};
        b.c.capacity = {};
    }
    if (const char* fault = gf::fault(b.c)) throw config_fault(fault);
    const double largest = 4.0 * b.c.hidden * (1.0 * b.c.experts * b.c.ffn + b.c.shared.ffn + b.c.experts + b.c.latent);
    if (largest * b.layers > 4e18) throw config_fault("config: more parameters than can be counted");
    return b;
}

}  // namespace hub_config
