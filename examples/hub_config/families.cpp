// One function per family: which fields name which part of gatefold::config.
//
// A field is either used, or stands in `elsewhere` (attention, embedding, rotation, text generation: nothing about the
// block), or is an error.
#include <map>

#include <gatefold/moe/routers.hpp>

#include "block.hpp"
#include "fields.hpp"

namespace hub_config {
namespace {

namespace gf = gatefold;
using gf::activation;
using gf::key_bias;
using gf::renormalise;
using R = gf::router_config;

constexpr const char* elsewhere[] = {
    // The model and its text.
    "_name_or_path", "architectures", "auto_map", "bos_token_id", "chunk_size_feed_forward", "decoder_start_token_id",
    "dtype", "eos_token_id", "id2label", "init_std", "initializer_factor", "initializer_range", "is_decoder",
    "is_encoder_decoder", "label2id", "model_max_length", "model_type", "num_logits_to_keep", "output_attentions",
    "output_hidden_states", "output_router_logits", "pad_token_id", "pretraining_tp", "problem_type", "return_dict",
    "tie_word_embeddings", "torch_dtype", "transformers_version", "use_cache", "vocab_size", "word_embed_proj_dim",
    // Attention, rotation, recurrent mixers.
    "_sliding_window_pattern", "add_cross_attention", "attention_bias", "attention_chunk_size", "attention_dropout",
    "attention_k_eq_v", "attention_multiplier", "attention_value_scale", "attn_config", "attn_layer_offset",
    "attn_layer_period", "attn_logit_softcapping", "attn_scale", "attn_temperature_tuning", "block_size", "chunk_size",
    "clip_qkv", "compress_rates", "compress_rope_theta", "conv_L_cache", "conv_bias", "conv_kernel", "d_kv",
    "decoder_attention_heads", "encoder_attention_heads", "expand", "floor_scale", "full_attn_alpha_factor",
    "full_attn_beta_factor", "head_dim", "index_block_size", "index_head_dim", "index_local_blocks", "index_n_heads",
    "index_topk", "index_topk_blocks", "kv_lora_rank", "layer_types", "linear_attn_alpha_factor",
    "linear_attn_beta_factor", "linear_conv_kernel_dim", "linear_head_dim", "linear_key_head_dim", "linear_num_heads",
    "linear_num_key_heads", "linear_num_value_heads", "linear_value_head_dim", "mamba_conv_bias", "mamba_d_conv",
    "mamba_d_state", "mamba_dt_rank", "mamba_expand", "mamba_head_dim", "mamba_hidden_act", "mamba_num_heads",
    "mamba_proj_bias", "mamba_ssm_cache_dtype", "max_position_embeddings", "max_seq_len", "max_window_layers",
    "n_groups", "n_heads", "no_rope_layer_interval", "no_rope_layers", "num_attention_heads", "num_heads",
    "num_key_value_heads", "num_kv_shared_layers", "o_groups", "o_lora_rank", "partial_rotary_factor",
    "per_layer_config", "q_lora_rank", "qk_head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "query_pre_attn_scalar",
    "relative_attention_max_distance", "relative_attention_num_buckets", "rope_interleave", "rope_parameters",
    "rope_scaling", "rope_theta", "rotary_dim", "sliding_window", "ssm_state_size", "time_step_floor",
    "time_step_limit", "time_step_max", "time_step_min", "use_associative_scan", "use_bidirectional_attention",
    "use_conv_bias", "use_mamba_kernels", "use_mambapy", "use_qk_norm", "use_sliding_window", "v_head_dim",
    // Residual stream, embedding, norms, dense layers, dropout, extra prediction layers.
    "activation_dropout", "dropout", "dropout_rate", "decoder_layerdrop", "emb_pdrop", "embedding_multiplier",
    "encoder_layerdrop", "encoder_layers", "encoder_sparse_step", "final_logit_softcapping", "hc_eps", "hc_mult",
    "hc_sinkhorn_iters", "hidden_dropout", "hidden_size_per_layer_input", "layer_norm_epsilon", "lm_head_bias",
    "logits_scaling", "mlp_alpha_factor", "mlp_beta_factor", "mtp_layers_block_type", "norm_eps",
    "num_nextn_predict_layers", "num_sparse_encoder_layers", "rescale_prenorm_residual", "resid_pdrop",
    "residual_in_fp32", "residual_multiplier", "rms_norm_eps", "scale_embedding", "use_double_wide_mlp",
    "vocab_size_per_layer_input",
    // Losses are arguments of a call, storage is the file's.
    "aux_loss_alpha", "moe_loss_weight", "quantization_config", "router_aux_loss_coef", "router_ignore_padding_tokens",
    "router_z_loss_coef", "seq_aux"};

/// The activation of gated experts under its name in configurations.
activation gated(fields& f, const std::string& name) {
    const std::string act = f.text(name);
    if (act == "silu" || act == "swish") return activation::swiglu;
    if (act == "gelu_pytorch_tanh" || act == "gelu_new") return activation::geglu_tanh;
    if (act == "gelu") return activation::geglu_erf;
    if (act == "relu") return activation::reglu;
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

/// Blocks of the decoder and those with experts, however a family counts them.
void count_layers(fields& f, block& b, const char* layers = "num_hidden_layers") {
    b.layers = f.integer(layers);
    b.sparse = b.layers;
    int ways = 0;
    const auto set = [&](int sparse) {
        if (ways++ > 0 && sparse != b.sparse)
            f.fault(layers, "fields disagree about the number of blocks with experts");
        b.sparse = sparse;
    };
    for (const char* name : {"first_k_dense_replace", "num_dense_layers"})
        if (f.has(name)) set(b.layers - f.integer_or(name, 0));
    if (f.has("mlp_layer_types")) {
        int sparse = 0;
        for (const auto& type : f.at("mlp_layer_types")) sparse += type != "dense" ? 1 : 0;
        if (static_cast<int>(f.at("mlp_layer_types").size()) != b.layers)
            f.fault("mlp_layer_types", "expected one entry per layer");
        set(sparse);
    }
    if (f.has("layers_block_type")) {
        int sparse = 0;
        for (const auto& type : f.at("layers_block_type")) sparse += type == "moe" ? 1 : 0;
        set(sparse);
    }
    if (f.has("moe_layers")) set(static_cast<int>(f.at("moe_layers").size()));
    if (f.has("interleave_moe_layer_step")) {
        const int step = f.integer("interleave_moe_layer_step");
        set(b.layers / step);
    }
    if (f.has("expert_layer_period")) {
        const int period = f.integer("expert_layer_period"), offset = f.integer("expert_layer_offset", 0);
        int sparse = 0;
        for (int l = 0; l < b.layers; ++l) sparse += l % period == offset ? 1 : 0;
        set(sparse);
    }
    if (f.has("moe_layer_interval")) {
        const int interval = f.integer("moe_layer_interval"), start = f.integer("moe_layer_start_index", 0),
                  end = f.integer_or("moe_layer_end_index", b.layers - 1, -1);
        int sparse = 0;
        for (int l = 0; l < b.layers; ++l)
            sparse += (l + 1) % interval == 0 && l >= start && (l <= end || end < 0) ? 1 : 0;
        set(sparse);
    }
    if (f.has("moe_layer_freq")) f.expect("moe_layer_freq", 1);
    if (f.has("decoder_sparse_step")) {
        const int step = f.integer("decoder_sparse_step");
        const auto& dense = f.at("mlp_only_layers");
        int sparse = 0;
        for (int l = 0; l < b.layers; ++l)
            sparse += (l + 1) % step == 0 && std::find(dense.begin(), dense.end(), l) == dense.end() ? 1 : 0;
        set(sparse);
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

void arctic(fields& f, block& b) {
    mixtral(f, b);
    f.ignore(std::initializer_list<const char*>{
        "use_residual", "parallel_attn_mlp_res", "moe_layer_frequency", "moe_eval_capacity_factor",
        "moe_train_capacity_factor", "moe_min_capacity", "moe_token_dropping", "enable_expert_tensor_parallelism"});
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
    b.c.router.epsilon = static_cast<float>(f.number("moe_norm_min"));
    shared_experts(f, b, "moe_num_shared_experts", b.c.ffn);
    b.c.shared.bias = b.c.bias && b.c.shared.ffn > 0;
}

void gemma4(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "moe_intermediate_size", {"num_experts"}, {"top_k_experts"});
    f.ignore(std::initializer_list<const char*>{"intermediate_size"});
    f.expect("enable_moe_block", true);
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
    b.c.act = gated(f, "hidden_act");
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
                                                "moe_drop_tokens", "moe_layer_num_skipped"});
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
    shape(f, b, "moe_intermediate_size", {"n_routed_experts"});
    f.ignore(std::initializer_list<const char*>{"intermediate_size", "ep_size"});
    f.expect("scoring_func", "sigmoid");
    f.expect("topk_method", "noaux_tc");
    b.c.act = gated(f, "hidden_act");
    b.c.router = gf::routers::deepseek_v3;
    if (!f.flag("norm_topk_prob")) {
        b.c.router.renorm = renormalise::none;
        b.c.router.epsilon = 0;
    }
    groups(f, b, "n_group", gf::group_key::top2_sum);
    scale(f, b);
    shared_experts(f, b, "n_shared_experts", b.c.ffn);
}

void kimi_linear(fields& f, block& b) {
    count_layers(f, b);
    shape(f, b, "moe_intermediate_size", {"num_experts"}, {"num_experts_per_token", "num_experts_per_tok"});
    f.ignore(std::initializer_list<const char*>{"intermediate_size", "use_grouped_topk"});
    f.expect("moe_router_activation_func", "sigmoid");
    f.expect("moe_renormalize", true);
    b.c.act = gated(f, "hidden_act");
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
    f.expect("hidden_act", "silu");
    f.expect("swiglu_alpha", 1.702);
    f.expect("scoring_func", "sigmoid");
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
    int tables = 0;
    for (const auto& type : f.at("mlp_layer_types")) tables += type == "hash_moe" ? 1 : 0;
    if (tables > 0)
        b.notes.push_back(std::to_string(tables) +
                          " layers take their experts from a table: routers::deepseek_v4_hash and batch::chosen");
}

void nemotron_h(fields& f, block& b) {
    // Older configurations count layers by the list of their kinds alone.
    if (f.has("num_hidden_layers")) {
        count_layers(f, b);
    } else {
        for (const auto& type : f.at("layers_block_type")) {
            ++b.layers;
            b.sparse += type == "moe" ? 1 : 0;
        }
        if (b.layers == 0) f.fault("layers_block_type", "missing");
    }
    shape(f, b, "moe_intermediate_size", {"n_routed_experts"});
    f.ignore(std::initializer_list<const char*>{"intermediate_size", "moe_shared_expert_overlap", "use_bias",
                                                "hybrid_override_pattern"});
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
    b.c.act = plain(f, "dense_act_fn");
    f.expect("is_gated_act", false);
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

// ---- models without experts

void dense(fields& f, block& b) {
    b.layers = f.integer("num_hidden_layers");
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
        {"deepseek_v2", deepseek_v2},
        {"deepseek_v3", deepseek_v3},
        {"deepseek_v32", deepseek_v3},
        {"deepseek_v4", deepseek_v4},
        {"ernie4_5_moe", ernie},
        {"gemma3_text", dense},
        {"gemma4_text", gemma4},
        {"glm4_moe", deepseek_v3},
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
        {"minimax", mixtral},
        {"minimax_m2", minimax_m2},
        {"minimax_m3_vl_text", minimax_m3},
        {"mistral", dense},
        {"mixtral", mixtral},
        {"nemotron_h", nemotron_h},
        {"nllb-moe", nllb},
        {"olmoe", olmoe},
        {"phimoe", phimoe},
        {"qwen2_moe", qwen},
        {"qwen3", dense},
        {"qwen3_5_moe_text", qwen},
        {"qwen3_moe", qwen},
        {"qwen3_next", qwen},
        {"smollm3", dense},
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
    if (config.is_object() && config.contains("text_config")) return read_block(config.at("text_config"));
    fields f(config);
    block b;
    b.family = f.text_or("model_type", "");
    const auto found = readers().find(b.family);
    if (found == readers().end())
        throw config_fault("model_type: no family of this reader is called \"" + b.family + "\"");
    f.ignore(elsewhere);
    found->second(f, b);
    if (f.has("quantization_config")) b.notes.push_back("quantization_config: load_block decodes MXFP4 and FP8");
    f.finish(b.family);
    if (gf::is_dense(b.c)) {
        b.c.router = {};
        b.c.capacity = {};
    }
    if (const char* fault = gf::fault(b.c)) throw config_fault(fault);
    return b;
}

}  // namespace hub_config
