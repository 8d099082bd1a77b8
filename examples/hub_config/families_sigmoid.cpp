// Families whose scores are a sigmoid, or the root of softplus.
#include "family.hpp"

namespace hub_config {

void deepseek_v3(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "moe_intermediate_size", {"n_routed_experts", "num_experts"});
    f.ignore(std::initializer_list<const char*>{"intermediate_size", "ep_size"});
    f.expect("mlp_bias", false);
    f.expect("moe_router_dtype", "float32");
    f.expect("scoring_func", "sigmoid");
    f.expect("topk_method", "noaux_tc");
    b.c.act = gated(f, "hidden_act");
    b.c.router = gf::routers::deepseek_v3;
    if (!f.flag("norm_topk_prob")) {
        b.c.router.renorm = renormalise::none;
        b.c.router.epsilon = 0;
    }
    groups(f, b, "n_group", gf::group_key::top2_sum);
    // MiMo has null for a scale of 1.
    if (b.family != "mimo_v2_flash" || f.has("routed_scaling_factor"))
        scale(f, b);
    else
        b.c.router.scale = 1;
    shared_experts(f, b, "n_shared_experts", b.c.ffn);
}

/// Step-3.5 and 3.7.
void step3(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "moe_intermediate_size", {"num_experts", "moe_num_experts"}, {"num_experts_per_tok", "moe_top_k"});
    f.ignore(std::initializer_list<const char*>{"intermediate_size"});
    f.expect("scoring_func", "sigmoid");
    f.expect("moe_router_activation", "sigmoid");
    f.expect("use_moe_router_bias", true);
    f.expect("norm_expert_weight", true);
    b.c.act = f.has("hidden_act") ? gated(f, "hidden_act") : activation::swiglu;
    b.c.router = gf::routers::step3;
    b.c.router.scale = f.number("moe_router_scaling_factor");
    f.expect("n_shared_experts", 1);
    b.c.shared = {.ffn = f.one_of({"share_expert_dim", "share_expert_dims"}), .act = b.c.act};
    for (const char* name : {"swiglu_limits", "swiglu_limits_shared"}) {
        int limited = 0;
        for (const auto& limit : f.list(name)) limited += limit.is_number() && limit != 0 ? 1 : 0;
        if (limited > 0)
            b.notes.push_back(std::string(name) + ": " + std::to_string(limited) +
                              " layers clamp: types of their own, with activation::limited_swiglu and their limit");
    }
}

void kimi_linear(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "moe_intermediate_size", {"num_experts"}, {"num_experts_per_token", "num_experts_per_tok"});
    f.ignore(std::initializer_list<const char*>{"intermediate_size", "use_grouped_topk"});
    f.expect("moe_router_activation_func", "sigmoid");
    f.expect("moe_renormalize", true);
    f.expect("topk_method", "noaux_tc");
    b.c.act = gated(f, "hidden_act");
    b.c.latent = f.integer_or("routed_expert_hidden_size", 0);
    b.c.latent_norm = f.flag_or("latent_moe_use_norm", false);
    b.c.router = gf::routers::deepseek_v3;
    groups(f, b, "num_expert_group", gf::group_key::top2_sum);
    scale(f, b);
    shared_experts(f, b, "num_shared_experts", b.c.ffn);
}

void lfm2(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "moe_intermediate_size", {"num_experts"});
    f.ignore(std::initializer_list<const char*>{"intermediate_size"});
    b.c.router = gf::routers::lfm2;
    if (!f.flag("use_expert_bias")) b.c.router.selection_bias = key_bias::none;
    if (!f.flag("norm_topk_prob")) {
        b.c.router.renorm = renormalise::none;
        b.c.router.epsilon = 0;
    }
    scale(f, b);
}

void llama4(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "intermediate_size", {"num_local_experts"});
    f.ignore(std::initializer_list<const char*>{"intermediate_size_mlp", "for_llm_compressor"});
    b.c.act = gated(f, "hidden_act");
    b.c.router = gf::routers::llama4;
    jitter(f, b);
    b.c.shared = {.ffn = b.c.ffn, .act = b.c.act};
}

void minimax_m2(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "intermediate_size", {"num_local_experts"});
    f.expect("scoring_func", "sigmoid");
    f.expect("use_routing_bias", true);
    f.expect("shared_intermediate_size", 0);
    b.c.act = gated(f, "hidden_act");
    b.c.router = gf::routers::minimax_m2;
    jitter(f, b);
}

void minimax_m3(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "intermediate_size", {"num_local_experts"});
    f.ignore(std::initializer_list<const char*>{"dense_intermediate_size"});
    f.expect("moe_intermediate_size", b.c.ffn);
    if (const std::string act = f.text("hidden_act"); act != "silu" && act != "swigluoai")
        f.fault("hidden_act", "expected silu or swigluoai, got " + act);
    f.expect("swiglu_alpha", 1.702);
    f.expect("scoring_func", "sigmoid");
    f.expect("use_routing_bias", true);
    f.expect("n_shared_experts", 1);
    b.c.act = activation::clamped_swiglu;
    b.c.limit = static_cast<float>(f.number("swiglu_limit"));
    b.c.router = gf::routers::minimax_m3;
    jitter(f, b);
    scale(f, b);
    if (const int width = f.integer_or("shared_intermediate_size", 0); width > 0)
        b.c.shared = {.ffn = width, .act = b.c.act, .limit = b.c.limit};
}

void deepseek_v4(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "moe_intermediate_size", {"n_routed_experts"});
    f.expect("hidden_act", "silu");
    f.expect("mlp_bias", false);
    f.expect("scoring_func", "sqrtsoftplus");
    f.expect("norm_topk_prob", true);
    b.c.act = activation::limited_swiglu;
    b.c.limit = static_cast<float>(f.number("swiglu_limit"));
    b.c.router = gf::routers::deepseek_v4;
    jitter(f, b);
    scale(f, b);
    shared_experts(f, b, "n_shared_experts", b.c.ffn);
    f.expect("topk_method", "noaux_tc");
    int tables = f.integer_or("num_hash_layers", 0), listed = 0;
    for (const auto& type : f.list("mlp_layer_types")) listed += type == "hash_moe" ? 1 : 0;
    if (f.has("num_hash_layers") && f.has("mlp_layer_types") && tables != listed)
        f.fault("num_hash_layers",
                "contradicts mlp_layer_types (" + std::to_string(tables) + " and " + std::to_string(listed) + ")");
    tables = (std::max)(tables, listed);
    if (tables > 0)
        b.notes.push_back(std::to_string(tables) +
                          " layers take their experts from a table: routers::deepseek_v4_hash and batch::chosen");
}

void nemotron_h(fields& f, block& b) {
    // One letter or one name per layer: M mamba, * attention, - dense, E experts.
    const std::string pattern = f.text_or("hybrid_override_pattern", "");
    const auto& types = f.list("layers_block_type");
    const auto in_types = std::count(types.begin(), types.end(), "moe");
    const auto in_pattern = std::count(pattern.begin(), pattern.end(), 'E');
    if (pattern.empty() && types.empty()) f.fault("layers_block_type", "missing, and hybrid_override_pattern too");
    if (!pattern.empty() && !types.empty() && (pattern.size() != types.size() || in_types != in_pattern))
        f.fault("hybrid_override_pattern", "contradicts layers_block_type");
    b.layers = static_cast<int>((std::max)(pattern.size(), types.size()));
    b.sparse = static_cast<int>((std::max)(in_types, in_pattern));
    f.expect("num_hidden_layers", b.layers);
    shape(f, b, "moe_intermediate_size", {"n_routed_experts"});
    f.ignore(std::initializer_list<const char*>{"intermediate_size", "moe_shared_expert_overlap", "use_bias"});
    b.c.act = plain(f, "mlp_hidden_act");
    b.c.bias = f.flag_or("mlp_bias", false);
    b.c.router = gf::routers::deepseek_v3;
    f.expect("norm_topk_prob", true);
    groups(f, b, "n_group", gf::group_key::top2_sum);
    scale(f, b);
    b.c.latent = f.integer_or("moe_latent_size", 0);
    f.expect("n_shared_experts", 1);
    b.c.shared = {.ffn = f.integer("moe_shared_expert_intermediate_size"), .act = b.c.act, .bias = b.c.bias};
}

}  // namespace hub_config
