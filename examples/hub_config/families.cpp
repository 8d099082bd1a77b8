// One function per family: which fields name which part of gatefold::config.
//
// A field is either used, or stands in `elsewhere` (attention, embedding, rotation, text generation: nothing about the
// block), or is an error.
#include <map>

#include <gatefold/moe/routers.hpp>

#include "block.hpp"
#include "elsewhere.hpp"
#include "fields.hpp"

namespace hub_config {
namespace {

namespace gf = gatefold;
using gf::activation;
using gf::key_bias;
using gf::renormalise;
using R = gf::router_config;

/// The activation of gated experts under its name in configurations.
activation gated(fields& f, const std::string& name) {
    const std::string act = f.text(name);
    if (act == "silu" || act == "swish") return activation::swiglu;
    if (act == "gelu_pytorch_tanh" || act == "gelu_new") return activation::geglu_tanh;
    if (act == "gelu") return activation::geglu_erf;
    if (act == "relu") return activation::reglu;
    if (act == "situ") {
        f.expect("activation_situ_beta", 4.0);
        f.expect("activation_situ_linear_beta", 25.0);
        return activation::situ;
    }
    if (!act.empty()) f.fault(name, "no gated activation of the library is called " + act);
    return activation::swiglu;
}
activation plain(fields& f, const std::string& name) {
    const std::string act = f.text(name);
    if (act == "relu") return activation::relu;
    if (act == "relu2") return activation::relu_squared;
    if (act == "gelu") return activation::gelu_erf;
    if (act == "gelu_new" || act == "gelu_pytorch_tanh") return activation::gelu_tanh;
    if (act == "silu") return activation::silu;
    if (!act.empty()) f.fault(name, "no activation of the library is called " + act);
    return activation::relu;
}

/// Counts the layers whose entry in a list of one entry per layer stands for experts.
template <class Test>
int count_in(fields& f, const char* name, int layers, Test&& is_sparse) {
    int sparse = 0;
    for (const auto& entry : f.list(name)) sparse += is_sparse(entry) ? 1 : 0;
    if (static_cast<int>(f.list(name).size()) != layers)
        f.fault(name, "expected one entry per layer, got " + std::to_string(f.list(name).size()));
    return sparse;
}

/// Blocks of the decoder and those with experts, however a family counts them. Several ways must agree.
void count_layers(fields& f, block& b, const char* layers = "num_hidden_layers") {
    b.layers = f.integer(layers);
    b.sparse = b.layers;
    std::string first;
    const auto set = [&](const char* name, int sparse) {
        if (!first.empty() && sparse != b.sparse)
            f.fault(name, "counts " + std::to_string(sparse) + " blocks with experts, " + first + " " +
                              std::to_string(b.sparse));
        if (sparse < 0 || sparse > b.layers) f.fault(name, "contradicts " + std::string(layers));
        first = name;
        b.sparse = sparse;
    };
    const auto set_each = [&](const char* name, auto&& is_sparse) {
        int sparse = 0;
        for (int l = 0; l < b.layers; ++l) sparse += is_sparse(l) ? 1 : 0;
        set(name, sparse);
    };
    for (const char* name : {"first_k_dense_replace", "num_dense_layers"})
        if (f.has(name)) set(name, b.layers - f.integer_or(name, 0));
    if (f.has("mlp_layer_types"))
        set("mlp_layer_types",
            count_in(f, "mlp_layer_types", b.layers, [](const auto& type) { return type != "dense"; }));
    if (f.has("moe_layers")) set("moe_layers", static_cast<int>(f.list("moe_layers").size()));
    if (f.has("interleave_moe_layer_step"))
        set("interleave_moe_layer_step", b.layers / f.integer("interleave_moe_layer_step"));
    if (f.has("expert_layer_period")) {
        const int period = f.integer("expert_layer_period"), offset = f.integer("expert_layer_offset", 0);
        set_each("expert_layer_period", [&](int l) { return l % period == offset; });
    }
    if (f.has("moe_layer_interval")) {
        const int interval = f.integer("moe_layer_interval"), start = f.integer("moe_layer_start_index", 0),
                  end = f.integer_or("moe_layer_end_index", b.layers - 1, -1);
        set_each("moe_layer_interval",
                 [&](int l) { return (l + 1) % interval == 0 && l >= start && (l <= end || end < 0); });
    }
    if (f.has("moe_layer_freq") && f.at("moe_layer_freq").is_array())
        set("moe_layer_freq", count_in(f, "moe_layer_freq", b.layers, [](const auto& entry) { return entry != 0; }));
    else
        f.expect("moe_layer_freq", 1);
    if (f.has("decoder_sparse_step") || f.has("mlp_only_layers")) {
        const int step = f.integer_or("decoder_sparse_step", 1, 1);
        const auto& dense = f.list("mlp_only_layers");
        set_each("decoder_sparse_step",
                 [&](int l) { return (l + 1) % step == 0 && std::find(dense.begin(), dense.end(), l) == dense.end(); });
    }
}

/// Width, number and choice of the experts.
void shape(fields& f, block& b, const char* ffn, std::initializer_list<const char*> experts,
           std::initializer_list<const char*> top_k = {"num_experts_per_tok"}) {
    b.c.hidden = f.integer("hidden_size");
    b.c.ffn = f.integer(ffn);
    b.c.experts = f.one_of(experts);
    b.c.top_k = f.one_of(top_k);
    if (f.is_sound() && b.c.top_k > b.c.experts) f.fault(*top_k.begin(), "more experts per token than there are");
}

/// Noise of the router's input in training.
void jitter(fields& f, block& b) {
    if (f.has("router_jitter_noise")) b.c.router.noise = static_cast<float>(f.number("router_jitter_noise"));
    if (b.c.router.noise < 0) f.fault("router_jitter_noise", "expected zero or more");
}
/// The same for blocks that jitter the tokens in place, so that the experts see it too.
void shared_jitter(fields& f, block& b) {
    jitter(f, b);
    if (b.c.router.noise > 0) b.c.router.noise_on = gf::input_noise::shared_jitter;
}

void shared_experts(fields& f, block& b, const char* count, int width) {
    const int n = f.integer_or(count, 0);
    if (n > most / width) return f.fault(count, "too many of this width");
    if (n > 0) b.c.shared = {.ffn = n * width, .act = b.c.act, .limit = b.c.limit};
}

/// Groups of experts: one group is none.
void groups(fields& f, block& b, const char* count, gf::group_key key) {
    const int n = f.integer_or(count, 1, 1), kept = f.integer_or("topk_group", 1, 1);
    R& r = b.c.router;
    r.groups = n;
    r.kept_groups = n > 1 ? kept : 1;
    r.group_by = n > 1 ? key : gf::group_key::none;
    if (kept > n) f.fault("topk_group", "more groups kept than " + std::string(count));
    if (b.c.experts % n != 0) f.fault(count, "the experts are no multiple of it");
}

void scale(fields& f, block& b) { b.c.router.scale = f.number("routed_scaling_factor"); }

// ---- softmax routers

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

void dense(fields& f, block& b);

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

// ---- sigmoid and its like

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

// ---- capacities

/// A number of rows whatever the tokens.
gf::capacity_config fixed_capacity(int rows) { return {.rule = gf::capacity_rule::fixed, .rows = rows}; }

void switch_transformers(fields& f, block& b) {
    b.layers = f.one_of({"num_decoder_layers", "num_layers"});
    b.sparse = f.integer("num_sparse_decoder_layers", 0);
    f.ignore(
        std::initializer_list<const char*>{"num_layers", "decoder_sparse_step", "add_router_probs", "router_type"});
    b.c.hidden = f.integer("d_model");
    b.c.ffn = f.integer("d_ff");
    b.c.experts = f.integer("num_experts");
    b.c.top_k = 1;
    b.c.act = f.flag_or("is_gated_act", false) ? gated(f, "dense_act_fn") : plain(f, "dense_act_fn");
    if (f.has("feed_forward_proj"))  // what the other two were made of
        f.expect("feed_forward_proj", std::string(gf::is_gated(b.c.act) ? "gated-" : "") +
                                          (f.text("dense_act_fn") == "gelu_new" ? "gelu" : f.text("dense_act_fn")));
    f.expect("batch_prioritized_routing", false);
    f.expect("router_dtype", "float32");
    b.c.router = gf::routers::switch_transformer;
    b.c.router.bias = f.flag_or("router_bias", false);
    jitter(f, b);
    b.c.capacity = fixed_capacity(f.integer("expert_capacity"));
    b.c.capacity.shared_by = gf::capacity_group::sequence;
    b.per_sequence = true;
}

void nllb(fields& f, block& b) {
    b.layers = f.integer("decoder_layers");
    b.sparse = b.layers / f.integer("decoder_sparse_step");
    f.expect("num_hidden_layers", b.layers);
    f.ignore(std::initializer_list<const char*>{"router_type"});
    b.c.hidden = f.integer("d_model");
    b.c.ffn = f.integer("decoder_ffn_dim");
    f.expect("encoder_ffn_dim", b.c.ffn);
    b.c.experts = f.integer("num_experts");
    b.c.top_k = 2;
    b.c.act = plain(f, "activation_function");
    b.c.bias = true;
    f.expect("router_dtype", "float32");
    const std::string second = f.text("second_expert_policy");
    b.c.router = second == "sampling" ? gf::routers::nllb_sampling
                 : second == "random" ? gf::routers::nllb_random
                                      : gf::routers::nllb;
    if (second != "all" && second != "sampling" && second != "random")
        f.fault("second_expert_policy", "expected all, sampling or random, got " + second);
    b.c.router.bias = f.flag_or("router_bias", false);
    // What is dropped in training multiplies the output at inference.
    if (const double dropped = f.number_or("moe_token_dropout", 0); dropped > 0) {
        b.c.router.scale = 1 - dropped;
        b.c.router.scaled = gf::scale_at::output;
        b.notes.push_back(
            "moe_token_dropout: as the scale of inference; in training whole outputs are dropped instead");
    }
    b.c.capacity = {.rule = gf::capacity_rule::nllb,
                    .factor = static_cast<float>(f.number("moe_eval_capacity_token_fraction")),
                    .keeps = f.flag("batch_prioritized_routing") ? gf::priority::importance : gf::priority::slot_major,
                    .renormalise_kept = !f.flag("normalize_router_prob_before_dropping")};
    if (f.has("expert_capacity"))
        b.notes.push_back("expert_capacity: in training the type takes 2 ceil(tokens / experts) rows instead of " +
                          std::to_string(f.integer("expert_capacity")));
}

// ---- how the weights are stored

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

// ---- models without experts

void dense(fields& f, block& b) {
    b.layers = f.integer("num_hidden_layers");
    f.expect("mlp_only_layers", nlohmann::json::array());
    b.c.hidden = f.integer("hidden_size");
    b.c.ffn = f.integer("intermediate_size");
    b.c.act = gated(f, f.has("hidden_activation") ? "hidden_activation" : "hidden_act");
    b.c.bias = f.flag_or("mlp_bias", false);
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
