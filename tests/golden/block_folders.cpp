#include "block_folders.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <stdexcept>

#include <examples/hub_config/block.hpp>
#include <nlohmann/json.hpp>

#include <gatefold/io/safetensors.hpp>

namespace block_folders {
namespace {

namespace fs = std::filesystem;
namespace gf = gatefold;
using nlohmann::json;

json read_config(const std::string& folder) {
    std::ifstream file(folder + "/config.json");
    if (!file) throw std::runtime_error("expected " + folder + "/config.json, got no such file");
    return hub_config::parse_config({std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()});
}

/// The part that describes the decoder: models of text and pictures keep it apart.
json& decoder_of(json& config) { return config.contains("text_config") ? config["text_config"] : config; }

/// The fields that are there, of one object or the ffn_config in it, get this value.
void put(json& config, std::initializer_list<const char*> names, gf::index_t value) {
    for (const char* name : names) {
        if (config.contains(name)) config[name] = value;
        if (config.contains("ffn_config") && config["ffn_config"].contains(name)) config["ffn_config"][name] = value;
    }
}
void put_ffn(json& config, gf::index_t value) {
    const json& inner = config.contains("ffn_config") ? config["ffn_config"] : config;
    for (const char* name : {"moe_intermediate_size", "expert_ffn_hidden_size", "ffn_hidden_size", "d_ff",
                             "decoder_ffn_dim", "intermediate_size"})
        if (inner.contains(name)) return put(config, {name, "encoder_ffn_dim"}, value);
}

/// A setting of the metadata, which is text, as Python prints it.
json setting(const std::string& text) {
    if (text == "True") return true;
    if (text == "False") return false;
    const json number = json::parse(text, nullptr, false);
    return number.is_number() ? number : json(text);
}

std::string letters_of(const std::string& name) {
    std::string letters;
    for (const char c : name)
        if (c != '_' && c != '-') letters += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    return letters;
}

/// The family of a block by its class in transformers: "Qwen3MoeSparseMoeBlock" begins with qwen3_moe.
std::string family_of(const std::string& block) {
    std::string best;
    for (const std::string& family : hub_config::families())
        if (letters_of(block).starts_with(letters_of(family)) && letters_of(family).size() > letters_of(best).size())
            best = family;
    if (best.empty()) throw std::runtime_error("no family of hub_config is that of " + block);
    return best;
}

/// The config.json of the first model of a family.
json config_of_family(const std::string& golden, const std::string& family) {
    std::vector<std::string> folders;
    for (const auto& entry : fs::directory_iterator(golden + "/models"))
        if (fs::exists(entry.path() / "config.json")) folders.push_back(entry.path().string());
    std::sort(folders.begin(), folders.end());
    for (const std::string& folder : folders) {
        json config = read_config(folder);
        if (decoder_of(config).value("model_type", "") == family) return decoder_of(config);
    }
    throw std::runtime_error("no folder of models/ has a configuration of " + family);
}

/// The extents of a block alone, as its tensors have them.
struct extents {
    gf::index_t hidden, choices, top_k, ffn, shared = 0, latent = 0;
};
extents extents_of(const gf::safetensors_file& file) {
    const auto shape = [&](std::initializer_list<const char*> names) -> std::vector<gf::index_t> {
        for (const char* name : names)
            if (const gf::stored_tensor* t = file.find(name)) return t->shape;
        return {};
    };
    extents x{};
    x.hidden = file.at("x").shape.at(1);
    x.top_k = file.at("router.ids").shape.at(1);
    x.choices = file.at("router.logits").shape.at(1);
    if (const auto s = shape({"param.fc1_latent_proj.weight"}); !s.empty()) x.latent = s.at(0);
    for (const char* root : {"param.shared_expert.", "param.shared_experts.", "param.shared_mlp."})
        if (const auto s = shape({(std::string(root) + "down_proj.weight").c_str()}); !s.empty()) x.shared = s.at(1);
    const gf::index_t width = x.latent > 0 ? x.latent : x.hidden;
    if (const auto s = shape({"param.experts.down_proj"}); !s.empty())
        x.ffn = s.at(1) == width ? s.at(2) : s.at(1);
    else if (const auto rows = shape({"param.experts.mlp.w2"}); !rows.empty())
        x.ffn = rows.at(0) / x.choices;
    else if (const auto one = shape({"param.experts.0.down_proj.weight", "param.experts.0.w2.weight",
                                     "param.experts.expert_0.wo.weight", "param.experts.expert_0.fc2.weight"});
             !one.empty())
        x.ffn = one.at(1);
    else
        throw std::runtime_error("no tensor of it tells the width of an expert");
    return x;
}

template <class F>
block_case read_case(const std::string& name, F&& config) {
    block_case result;
    result.name = name;
    try {
        const hub_config::block b = hub_config::read_block(config());
        result.family = b.family;
        result.c = b.c;
    } catch (const std::exception& e) {
        result.fault = e.what();
    }
    return result;
}

bool holds_block(const fs::path& folder) {
    if (!fs::exists(folder / "golden.safetensors")) return false;
    const auto file = gf::safetensors_file::open((folder / "golden.safetensors").string());
    return file.find("block.output") != nullptr || file.find("experts.output") != nullptr;
}

}  // namespace

block_case model_case(const std::string& golden, const std::string& name) {
    return read_case(name, [&] { return read_config(golden + "/models/" + name); });
}

block_case gradient_case(const std::string& golden, const std::string& name) {
    return read_case(name, [&] {
        const auto file = gf::safetensors_file::open(golden + "/gradients/blocks/" + name + ".safetensors");
        const std::string* block = file.find_metadata("block");
        if (block == nullptr) throw std::runtime_error("its metadata has no \"block\"");
        json config = config_of_family(golden, family_of(*block));
        const extents x = extents_of(file);
        gf::index_t experts = x.choices;
        for (const auto& [key, text] : file.metadata()) {
            if (key == "block" || key == "mode" || key == "torch" || key == "transformers" || key == "min_margin")
                continue;
            if (key == "num_experts_per_tok") continue;  // whatever the family calls it: in the shape of the ids
            if (key == "zero_expert_num") experts -= setting(text).get<int>();
            config[key] = setting(text);
        }
        put(config, {"hidden_size", "d_model"}, x.hidden);
        put(config, {"num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"}, experts);
        put(config,
            {"num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_k", "moe_topk", "moe_top_k",
             "top_k_experts"},
            x.top_k);
        put_ffn(config, x.ffn);
        put(config,
            {"shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", "shared_intermediate_size"},
            x.shared);
        put(config, {"moe_latent_size", "routed_expert_hidden_size"}, x.latent);
        return config;
    });
}

findings look(const std::string& golden) {
    if (!fs::is_directory(golden + "/models") || !fs::is_directory(golden + "/gradients/blocks"))
        throw std::runtime_error("expected folders models and gradients/blocks in " + golden);
    findings found;
    for (const auto& entry : fs::directory_iterator(golden + "/models")) {
        if (!entry.is_directory()) continue;
        const std::string name = entry.path().filename().string();
        if (holds_block(entry.path()))
            found.models.push_back(model_case(golden, name));
        else
            found.without_block.push_back(name);
    }
    for (const auto& entry : fs::directory_iterator(golden + "/gradients/blocks"))
        if (entry.path().extension() == ".safetensors")
            found.gradients.push_back(gradient_case(golden, entry.path().stem().string()));
    const auto by_name = [](const block_case& a, const block_case& b) { return a.name < b.name; };
    std::sort(found.models.begin(), found.models.end(), by_name);
    std::sort(found.gradients.begin(), found.gradients.end(), by_name);
    std::sort(found.without_block.begin(), found.without_block.end());
    return found;
}

std::vector<excuse> read_excuses(const std::string& path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error("cannot open " + path);
    std::vector<excuse> excuses;
    for (std::string line; std::getline(file, line);) {
        if (line.empty() || line.front() == '#') continue;
        const auto colon = line.find(": ");
        if (colon == std::string::npos || colon + 2 >= line.size())
            throw std::runtime_error(path + ": expected NAME: reason, got " + line);
        excuses.push_back({line.substr(0, colon), line.substr(colon + 2)});
    }
    return excuses;
}

}  // namespace block_folders
