// Families whose scores are a softmax.
#include "elsewhere.hpp"
#include "family.hpp"

namespace hub_config {

void mixtral(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "intermediate_size", {"num_local_experts", "num_experts"});
    b.c.act = gated(f, "hidden_act");
    b.c.router = gf::routers::mixtral;
    shared_jitter(f, b);
}

void minimax_01(fields& f, block& b) {
    mixtral(f, b);
    f.expect("shared_intermediate_size", 0);
    f.expect("shared_moe_mode", "sigmoid");  // of the shared expert that there is none of
}

void arctic(fields& f, block& b) {
    mixtral(f, b);
    f.ignore(std::initializer_list<const char*>{"use_residual", "parallel_attn_mlp_res", "moe_layer_frequency",
                                                "moe_eval_capacity_factor", "moe_train_capacity_factor",
                                                "moe_min_capacity", "moe_token_dropping",
                                                "enable_expert_tensor_parallelism", "enc_index", "quantization"});
    b.notes.push_back("the dense residual branch is a layer of its own beside this one");
}

void qwen(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "moe_intermediate_size", {"num_experts", "num_local_experts"});
    f.ignore(std::initializer_list<const char*>{"intermediate_size"});
    b.c.act = gated(f, "hidden_act");
    // Qwen3.5 has no such field: it always divides.
    b.c.router = f.flag_or("norm_topk_prob", b.family.starts_with("qwen3_5")) ? gf::routers::qwen3 : gf::routers::olmoe;
    if (!f.has("norm_topk_prob") && !b.family.starts_with("qwen3_5")) f.fault("norm_topk_prob", "missing");
    if (const int width = f.integer_or("shared_expert_intermediate_size", 0); width > 0)
        b.c.shared = {.ffn = width, .gate = true, .act = b.c.act};
}

void olmoe(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "intermediate_size", {"num_experts", "num_local_experts"});
    b.c.act = gated(f, "hidden_act");
    b.c.router = f.flag("norm_topk_prob") ? gf::routers::mixtral : gf::routers::olmoe;
}

void jamba(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "intermediate_size", {"num_experts", "num_local_experts"});
    b.c.act = gated(f, "hidden_act");
    b.c.router = gf::routers::jamba;
}

void granite(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "intermediate_size", {"num_local_experts", "num_experts"});
    b.c.act = gated(f, "hidden_act");
    b.c.router = gf::routers::granite;
    if (const int width = f.integer_or("shared_intermediate_size", 0); width > 0)
        b.c.shared = {.ffn = width, .act = b.c.act};
}

void dbrx(fields& f, block& b) {
    b.layers = b.sparse = f.integer("n_layers");
    b.c.hidden = f.integer("d_model");
    if (!f.has("ffn_config")) return f.fault("ffn_config", "missing");
    fields inner(f.at("ffn_config"));
    inner.ignore(elsewhere);
    inner.expect("hidden_size", b.c.hidden);
    b.c.ffn = inner.integer("ffn_hidden_size");
    b.c.experts = inner.integer("moe_num_experts");
    b.c.top_k = inner.integer("moe_top_k");
    if (inner.has("ffn_act_fn")) {
        fields act(inner.at("ffn_act_fn"));
        b.c.act = gated(act, "name");
        act.finish("the activation of dbrx");
    }
    b.c.router = gf::routers::dbrx;
    if (!inner.has("moe_normalize_expert_weights"))
        b.c.router.renorm = renormalise::none;
    else
        inner.expect("moe_normalize_expert_weights", 1.0);
    if (inner.has("moe_jitter_eps")) b.c.router.noise = static_cast<float>(inner.number("moe_jitter_eps"));
    inner.finish("ffn_config of dbrx");
}

void gpt_oss(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "intermediate_size", {"num_local_experts", "num_experts"},
          {"num_experts_per_tok", "experts_per_token"});
    f.expect("hidden_act", "silu");
    f.expect("swiglu_alpha", 1.702);
    b.c.act = activation::clamped_swiglu;
    b.c.limit = static_cast<float>(f.number("swiglu_limit"));
    b.c.bias = true;
    b.c.router = gf::routers::gpt_oss;
    f.ignore(std::initializer_list<const char*>{"initial_context_length"});
}

void deepseek(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "moe_intermediate_size", {"n_routed_experts"});
    f.ignore(std::initializer_list<const char*>{"intermediate_size"});
    f.expect("scoring_func", "softmax");
    b.c.act = gated(f, "hidden_act");
    b.c.router = gf::routers::deepseek_moe;
    if (f.flag("norm_topk_prob")) {
        b.c.router.renorm = renormalise::sum_plus;
        b.c.router.epsilon = 1e-20f;
    }
    shared_experts(f, b, "n_shared_experts", b.c.ffn);
}

void deepseek_v2(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "moe_intermediate_size", {"n_routed_experts"});
    f.ignore(std::initializer_list<const char*>{"intermediate_size", "ep_size"});
    f.expect("mlp_bias", false);
    f.expect("scoring_func", "softmax");
    // The original code divides and leaves out the scale, transformers ignores the flag: nothing to choose between.
    f.expect("norm_topk_prob", false);
    b.c.act = gated(f, "hidden_act");
    b.c.router = gf::routers::deepseek_v2_lite;
    const std::string method = f.text("topk_method");
    if (method == "group_limited_greedy")
        groups(f, b, "n_group", gf::group_key::max);
    else if (method == "greedy")
        f.ignore(std::initializer_list<const char*>{"n_group", "topk_group"});
    else
        f.fault("topk_method", "expected greedy or group_limited_greedy, got " + method);
    scale(f, b);
    shared_experts(f, b, "n_shared_experts", b.c.ffn);
}

void ernie(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "moe_intermediate_size", {"moe_num_experts"}, {"moe_k"});
    f.ignore(std::initializer_list<const char*>{"intermediate_size"});
    b.c.act = gated(f, "hidden_act");
    b.c.bias = f.flag_or("use_bias", false);
    b.c.router = gf::routers::ernie;
    f.expect("moe_gate", "topk");
    f.expect("moe_use_aux_free", true);
    // Configurations of the original code leave out what it has as a constant.
    b.c.router.epsilon = static_cast<float>(f.number_or("moe_norm_min", 1e-12));
    if (f.has("moe_capacity")) b.notes.push_back("moe_capacity: of training; the type has none");
    shared_experts(f, b, "moe_num_shared_experts", b.c.ffn);
    b.c.shared.bias = b.c.bias && b.c.shared.ffn > 0;
}

void gemma4(fields& f, block& b) {
    if (!f.flag("enable_moe_block")) {
        for (const char* name : {"num_experts", "top_k_experts", "moe_intermediate_size", "expert_intermediate_size"})
            if (f.has(name)) f.fault(name, "contradicts enable_moe_block");
        return dense(f, b);
    }
    count_layers(f, b);
    shape(f, b, "moe_intermediate_size", {"num_experts"}, {"top_k_experts"});
    f.ignore(std::initializer_list<const char*>{"intermediate_size"});
    b.c.act = gated(f, "hidden_activation");
    b.c.router = gf::routers::gemma4;
    b.notes.push_back("the router reads the residual (batch::router_x); the dense branch is a layer of its own");
}

void longcat(fields& f, block& b) {
    b.layers = b.sparse = f.integer("num_layers");
    shape(f, b, "expert_ffn_hidden_size", {"n_routed_experts"}, {"moe_topk"});
    f.ignore(std::initializer_list<const char*>{"ffn_hidden_size"});
    f.expect("zero_expert_type", "identity");
    f.expect("norm_topk_prob", false);
    f.expect("router_bias", false);
    // The original configuration leaves it out: its code knows one activation.
    b.c.act = f.has("hidden_act") ? gated(f, "hidden_act") : activation::swiglu;
    b.c.router = gf::routers::longcat;
    b.c.free.copy = f.integer("zero_expert_num", 0);
    scale(f, b);
    f.ignore(std::initializer_list<const char*>{"mla_scale_q_lora", "mla_scale_kv_lora"});
}

void hunyuan(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, f.has("moe_intermediate_size") ? "moe_intermediate_size" : "intermediate_size", {"num_experts"},
          {"moe_topk"});
    f.ignore(std::initializer_list<const char*>{"intermediate_size", "use_mixed_mlp_moe",
                                                "moe_random_routing_dropped_token", "capacity_factor",
                                                "moe_drop_tokens"});
    f.expect("moe_layer_num_skipped", 0);
    f.expect("group_limited_greedy", false);
    f.expect("norm_topk_prob", true);
    f.expect("routed_scaling_factor", 1.0);
    b.c.act = gated(f, "hidden_act");
    b.c.router = gf::routers::hunyuan;
    shared_experts(f, b, "num_shared_expert", b.c.ffn);
    b.notes.push_back("dropless, as it is served; the released code drops by capacity_rule::hunyuan");
}

void phimoe(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "intermediate_size", {"num_local_experts", "num_experts"});
    b.c.act = gated(f, "hidden_act");
    b.c.router = gf::routers::phi_moe;
    b.c.router.noise = static_cast<float>(f.number("router_jitter_noise"));
    if (static_cast<float>(f.number_or("input_jitter_noise", 0)) != b.c.router.noise)
        b.notes.push_back("input_jitter_noise: in training the input is jittered by router_jitter_noise");
}

void grok(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "intermediate_size", {"num_experts"}, {"num_experts_per_tok", "num_selected_experts"});
    b.c.act = activation::geglu_tanh;
    f.ignore(std::initializer_list<const char*>{"hidden_act", "attn_output_multiplier", "embedding_multiplier_scale",
                                                "max_attn_value", "output_multiplier_scale"});
    b.c.router = gf::routers::grok;
}

}  // namespace hub_config
