// The mixture-of-experts blocks of the golden models as configurations: what examples/hub_config prints for them.
//
// A folder under models/ that holds the tensors of a block stands here or in `not_expressible`; the test looks.
#pragma once

#include <initializer_list>

#include <gatefold/config.hpp>
#include <gatefold/moe/routers.hpp>

namespace block_cases {

namespace gf = gatefold;
using gf::with;
using R = gf::router_config;

struct model_case {
    const char* folder;
    const char* prefix;
    gf::config c;
    /// Tokens of a batch row where the capacity is one of each row.
    int row = 0;
};

/// Sigmoid routers of the DeepSeek kind with and without groups.
constexpr R grouped(int groups, int kept) {
    return with(gf::routers::deepseek_v3, &R::groups, groups, &R::kept_groups, kept);
}
constexpr gf::shared_config shared(int ffn, bool gate = false) { return {.ffn = ffn, .gate = gate}; }

inline constexpr model_case softmax_models[] = {
    {"mixtral",
     "model.layers.1.block_sparse_moe",
     {.hidden = 72, .ffn = 44, .experts = 5, .top_k = 2, .router = gf::routers::mixtral}},
    {"mixtral_bf16",
     "model.layers.1.block_sparse_moe",
     {.hidden = 72, .ffn = 30, .experts = 6, .top_k = 2, .router = gf::routers::mixtral}},
    {"mixtral_e1", "model.layers.0.block_sparse_moe", {.hidden = 72, .ffn = 44}},
    {"mixtral_window",
     "model.layers.1.block_sparse_moe",
     {.hidden = 60, .ffn = 34, .experts = 7, .top_k = 3, .router = gf::routers::mixtral}},
    {"minimax",
     "model.layers.2.block_sparse_moe",
     {.hidden = 64, .ffn = 40, .experts = 6, .top_k = 2, .router = gf::routers::minimax_01}},
    {"qwen3_moe",
     "model.layers.1.mlp",
     {.hidden = 64, .ffn = 12, .experts = 16, .top_k = 4, .router = gf::routers::qwen3}},
    {"qwen3_moe_e160",
     "model.layers.0.mlp",
     {.hidden = 40, .ffn = 8, .experts = 160, .top_k = 8, .router = gf::routers::qwen3}},
    {"qwen3_moe_f16_sharded",
     "model.layers.1.mlp",
     {.hidden = 64, .ffn = 18, .experts = 9, .top_k = 4, .router = gf::routers::qwen3}},
    {"qwen3_next",
     "model.layers.3.mlp",
     {.hidden = 64,
      .ffn = 12,
      .experts = 14,
      .top_k = 4,
      .router = gf::routers::qwen3_next,
      .shared = shared(20, true)}},
    {"qwen3_5_moe",
     "model.layers.1.mlp",
     {.hidden = 64,
      .ffn = 12,
      .experts = 8,
      .top_k = 3,
      .router = gf::routers::qwen3_next,
      .shared = shared(20, true)}},
};

inline constexpr model_case unscaled_models[] = {
    {"olmoe", "model.layers.1.mlp", {.hidden = 64, .ffn = 24, .experts = 12, .top_k = 3, .router = gf::routers::olmoe}},
    {"jamba",
     "model.layers.3.feed_forward",
     {.hidden = 64, .ffn = 28, .experts = 4, .top_k = 2, .router = gf::routers::jamba}},
    {"dbrx",
     "transformer.blocks.1.ffn",
     {.hidden = 64, .ffn = 40, .experts = 6, .top_k = 3, .router = gf::routers::dbrx}},
    {"granitemoe",
     "model.layers.1.block_sparse_moe",
     {.hidden = 64, .ffn = 40, .experts = 9, .top_k = 3, .router = gf::routers::granite}},
    {"gpt_oss",
     "model.layers.1.mlp",
     {.hidden = 64,
      .ffn = 40,
      .experts = 8,
      .top_k = 3,
      .act = gf::activation::clamped_swiglu,
      .limit = 7,
      .bias = true,
      .router = gf::routers::gpt_oss}},
    {"gpt_oss_mxfp4",
     "model.layers.0.mlp",
     {.hidden = 64,
      .ffn = 32,
      .experts = 5,
      .top_k = 3,
      .act = gf::activation::clamped_swiglu,
      .limit = 7,
      .bias = true,
      .router = gf::routers::gpt_oss}},
    {"deepseek_v2",
     "model.layers.2.mlp",
     {.hidden = 64,
      .ffn = 24,
      .experts = 12,
      .top_k = 3,
      .router = with(gf::routers::deepseek_v2, &R::groups, 4, &R::kept_groups, 2),
      .shared = shared(48)}},
    {"deepseek_v2_lite",
     "model.layers.2.mlp",
     {.hidden = 64,
      .ffn = 12,
      .experts = 12,
      .top_k = 3,
      .router = gf::routers::deepseek_v2_lite,
      .shared = shared(24)}},
    {"ernie4_5_moe",
     "model.layers.2.mlp",
     {.hidden = 64, .ffn = 24, .experts = 10, .top_k = 3, .router = gf::routers::ernie, .shared = shared(48)}},
};

inline constexpr model_case sigmoid_models[] = {
    {"deepseek_v3",
     "model.layers.1.mlp",
     {.hidden = 64, .ffn = 20, .experts = 16, .top_k = 4, .router = grouped(4, 2), .shared = shared(20)}},
    {"deepseek_v3_fp8",
     "model.layers.1.mlp",
     {.hidden = 64, .ffn = 20, .experts = 6, .top_k = 3, .router = gf::routers::glm4_moe, .shared = shared(20)}},
    {"deepseek_v3_negative_keys",
     "model.layers.1.mlp",
     {.hidden = 64, .ffn = 12, .experts = 12, .top_k = 5, .router = grouped(4, 2), .shared = shared(12)}},
    {"deepseek_v3_yarn",
     "model.layers.2.mlp",
     {.hidden = 64, .ffn = 12, .experts = 24, .top_k = 5, .router = grouped(3, 2), .shared = shared(12)}},
    {"glm4_moe",
     "model.layers.2.mlp",
     {.hidden = 64, .ffn = 24, .experts = 12, .top_k = 4, .router = gf::routers::glm4_moe, .shared = shared(24)}},
    {"kimi_linear",
     "model.layers.1.block_sparse_moe",
     {.hidden = 64,
      .ffn = 12,
      .experts = 8,
      .top_k = 3,
      .router = with(gf::routers::glm4_moe, &R::scale, 2.446),
      .shared = shared(12)}},
    {"mimo_v2_flash",
     "model.layers.2.mlp",
     {.hidden = 64, .ffn = 12, .experts = 8, .top_k = 3, .router = gf::routers::mimo_v2}},
    {"lfm2_moe",
     "model.layers.2.feed_forward",
     {.hidden = 64, .ffn = 24, .experts = 8, .top_k = 3, .router = with(gf::routers::lfm2, &R::scale, 1.5)}},
    {"minimax_m3",
     "language_model.model.layers.1.block_sparse_moe",
     {.hidden = 64,
      .ffn = 16,
      .experts = 8,
      .top_k = 3,
      .act = gf::activation::clamped_swiglu,
      .limit = 7,
      .router = gf::routers::minimax_m3,
      .shared = {.ffn = 20, .act = gf::activation::clamped_swiglu, .limit = 7}}},
    {"nemotron_h",
     "backbone.layers.3.mixer",
     {.hidden = 64,
      .ffn = 24,
      .experts = 8,
      .top_k = 3,
      .act = gf::activation::relu_squared,
      .router = gf::routers::nemotron3,
      .shared = {.ffn = 40, .act = gf::activation::relu_squared},
      .latent = 32}},
};

inline constexpr model_case other_models[] = {
    {"deepseek_v4",
     "model.layers.3.ffn",
     {.hidden = 64,
      .ffn = 16,
      .experts = 7,
      .top_k = 3,
      .act = gf::activation::limited_swiglu,
      .limit = 10,
      .router = gf::routers::deepseek_v4,
      .shared = {.ffn = 16, .act = gf::activation::limited_swiglu, .limit = 10}}},
    {"gemma4",
     "model.layers.2",
     {.hidden = 64,
      .ffn = 20,
      .experts = 10,
      .top_k = 3,
      .act = gf::activation::geglu_tanh,
      .router = gf::routers::gemma4}},
    {"llama4",
     "model.layers.3.feed_forward",
     {.hidden = 64, .ffn = 28, .experts = 6, .top_k = 1, .router = gf::routers::llama4, .shared = shared(28)}},
    {"longcat_flash",
     "model.layers.1.mlp",
     {.hidden = 64, .ffn = 14, .experts = 8, .top_k = 4, .router = gf::routers::longcat, .free = {.copy = 4}}},
    {"phimoe",
     "model.layers.1.block_sparse_moe",
     {.hidden = 64, .ffn = 40, .experts = 6, .top_k = 2, .router = with(gf::routers::phi_moe, &R::noise, 0.1f)}},
    // Outputs times 0.8 at inference: a scale of the routed sum.
    {"nllb_moe",
     "model.decoder.layers.1.ffn",
     {.hidden = 64,
      .ffn = 40,
      .experts = 5,
      .top_k = 2,
      .act = gf::activation::relu,
      .bias = true,
      .router = with(gf::routers::nllb, &R::scale, 0.8, &R::scaled, gf::scale_at::output),
      .capacity = {.rule = gf::capacity_rule::nllb, .factor = 0.42f, .renormalise_kept = true}}},
    // Capacity 5 of each row of 19 tokens.
    {"switch",
     "decoder.block.1.layer.2.mlp",
     {.hidden = 64,
      .ffn = 48,
      .experts = 4,
      .top_k = 1,
      .act = gf::activation::relu,
      .router = with(gf::routers::switch_transformer, &R::noise, 0),
      .capacity = {.rule = gf::capacity_rule::fixed, .rows = 5, .shared_by = gf::capacity_group::sequence}},
     19},
};

/// One block alone with all gradients: gradients/blocks/NAME.safetensors.
struct gradient_case {
    const char* name;
    gf::config c;
};

inline constexpr gradient_case softmax_gradients[] = {
    {"mixtral", {.hidden = 24, .ffn = 13, .experts = 5, .top_k = 2, .router = gf::routers::mixtral}},
    {"mixtral_empty_experts", {.hidden = 24, .ffn = 7, .experts = 31, .top_k = 3, .router = gf::routers::mixtral}},
    {"qwen3_moe", {.hidden = 24, .ffn = 11, .experts = 9, .top_k = 4, .router = gf::routers::qwen3}},
    {"qwen3_next",
     {.hidden = 24,
      .ffn = 9,
      .experts = 14,
      .top_k = 4,
      .router = gf::routers::qwen3_next,
      .shared = shared(11, true)}},
    {"olmoe", {.hidden = 24, .ffn = 11, .experts = 8, .top_k = 3, .router = gf::routers::olmoe}},
    {"jamba", {.hidden = 24, .ffn = 11, .experts = 5, .top_k = 2, .router = gf::routers::jamba}},
    {"dbrx", {.hidden = 24, .ffn = 11, .experts = 6, .top_k = 3, .router = gf::routers::dbrx}},
};

inline constexpr gradient_case key_gradients[] = {
    {"granitemoe", {.hidden = 24, .ffn = 11, .experts = 9, .top_k = 3, .router = gf::routers::granite}},
    {"gpt_oss",
     {.hidden = 24,
      .ffn = 12,
      .experts = 8,
      .top_k = 3,
      .act = gf::activation::clamped_swiglu,
      .limit = 7,
      .bias = true,
      .router = gf::routers::gpt_oss}},
    {"deepseek_v2",
     {.hidden = 24,
      .ffn = 9,
      .experts = 12,
      .top_k = 3,
      .router = with(gf::routers::deepseek_v2, &R::groups, 4, &R::kept_groups, 2),
      .shared = shared(18)}},
    {"deepseek_v3", {.hidden = 24, .ffn = 9, .experts = 16, .top_k = 4, .router = grouped(4, 2), .shared = shared(9)}},
    {"deepseek_v4",
     {.hidden = 24,
      .ffn = 9,
      .experts = 8,
      .top_k = 3,
      .act = gf::activation::limited_swiglu,
      .limit = 10,
      .router = gf::routers::deepseek_v4,
      .shared = {.ffn = 9, .act = gf::activation::limited_swiglu, .limit = 10}}},
    {"ernie4_5_moe",
     {.hidden = 24, .ffn = 9, .experts = 10, .top_k = 3, .router = gf::routers::ernie, .shared = shared(18)}},
};

inline constexpr gradient_case other_gradients[] = {
    {"llama4",
     {.hidden = 24, .ffn = 13, .experts = 6, .top_k = 1, .router = gf::routers::llama4, .shared = shared(13)}},
    {"longcat_zero_experts",
     {.hidden = 24, .ffn = 9, .experts = 6, .top_k = 4, .router = gf::routers::longcat, .free = {.copy = 3}}},
    {"nemotron_h_latent",
     {.hidden = 24,
      .ffn = 9,
      .experts = 8,
      .top_k = 3,
      .act = gf::activation::relu_squared,
      .router = gf::routers::nemotron3,
      .shared = {.ffn = 15, .act = gf::activation::relu_squared},
      .latent = 10}},
    {"phimoe_eval",
     {.hidden = 24, .ffn = 12, .experts = 6, .top_k = 2, .router = with(gf::routers::phi_moe, &R::noise, 0.1f)}},
    {"phimoe_train",
     {.hidden = 24, .ffn = 12, .experts = 6, .top_k = 2, .router = with(gf::routers::phi_moe, &R::noise, 0.3f)}},
    // Capacity 4 of 17 tokens for 4 experts: mesh's formula with factor 1.
    {"switch_capacity",
     {.hidden = 24,
      .ffn = 15,
      .experts = 4,
      .top_k = 1,
      .act = gf::activation::relu,
      .router = gf::routers::switch_transformer,
      .capacity = {.rule = gf::capacity_rule::mesh, .factor = 1}}},
};

struct excuse {
    const char* name;
    const char* reason;
};
/// Folders of models/ with a block and cases of gradients/blocks/ that no configuration expresses, and why; printed by
/// the run.
inline constexpr std::initializer_list<excuse> not_expressible = {};

}  // namespace block_cases
