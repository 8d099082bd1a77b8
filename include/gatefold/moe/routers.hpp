// The routers of published models and papers, as constants: config{..., .router = routers::deepseek_v3}.
//
// Each is a point in the axes of router_config; with(constant, &router_config::field, value) makes a variant. A number
// of a model (scale, epsilon, noise) is the default of the option of the same name. Where a model computes its logits
// in the storage type, so does its constant: logits_in.
#pragma once

#include <gatefold/config.hpp>

namespace gatefold::inline v0::routers {

// ---- softmax over all experts

/// Mixtral, Qwen3, Qwen3-Next, MiniMax-01, Arctic: the best k, divided by their sum. Where Mixtral is trained with
/// noise, input_noise::shared_jitter is how.
inline constexpr router_config mixtral{.logits_in = precision::storage, .renorm = renormalise::sum};
inline constexpr router_config qwen3 = mixtral, qwen3_next = mixtral, minimax_01 = mixtral, arctic = mixtral;

/// OLMoE, Qwen1.5-MoE, Qwen2-57B, Jamba: the best k, as they are.
inline constexpr router_config olmoe{.logits_in = precision::storage};
inline constexpr router_config qwen2_moe = olmoe, qwen2 = olmoe, jamba = olmoe;

/// DeepSeekMoE-16B, DeepSeek-V2-Lite, Grok-1: the same with a router in single precision.
inline constexpr router_config deepseek_moe{.weights = precision::accumulate};
inline constexpr router_config deepseek_v2_lite = deepseek_moe, grok = deepseek_moe;

/// DeepSeek-V2: 8 groups of which 3 by their best expert, not divided, times 16.
inline constexpr router_config deepseek_v2{
    .weights = precision::accumulate, .groups = 8, .kept_groups = 3, .group_by = group_key::max, .scale = 16};

/// DBRX: softmax in the storage type, divided by the 1-norm.
inline constexpr router_config dbrx{
    .logits_in = precision::storage, .scores_in = precision::storage, .renorm = renormalise::sum};

/// Hunyuan-A13B: divided by the sum, which is at least the rounding unit; dropless, as it is served.
inline constexpr router_config hunyuan{
    .weights = precision::accumulate, .renorm = renormalise::max_of, .epsilon = 0x1p-23f};

/// ERNIE-4.5: a correction bias on softmax scores.
inline constexpr router_config ernie{.weights = precision::accumulate,
                                     .selection_bias = key_bias::score,
                                     .renorm = renormalise::max_of,
                                     .epsilon = 1e-12f};

/// Gemma-4: reads the residual (batch::router_x) through a norm of its own; a learned scale per expert.
inline constexpr router_config gemma4{
    .input = router_input::rms_norm, .renorm = renormalise::sum, .expert_scale = true};

/// LongCat-Flash: softmax over experts and identity experts (config::free.copy) with a correction bias.
inline constexpr router_config longcat{.weights = precision::accumulate, .selection_bias = key_bias::score, .scale = 6};

/// MoE++: logits of the layer below are added through a learned map, experts read the token times k; zero experts
/// (config::free.zero) weigh nothing.
inline constexpr router_config moe_plus_plus{.weights = precision::accumulate,
                                             .transform = logit_transform::residual,
                                             .renorm = renormalise::sum,
                                             .input_times_k = true};

// ---- softmax over the chosen

/// Granite: the best k of the logits.
inline constexpr router_config granite{.logits_in = precision::storage, .from = score::softmax_selected};

/// gpt-oss: a biased projection, softmax in the storage type.
inline constexpr router_config gpt_oss{
    .logits_in = precision::storage, .scores_in = precision::storage, .bias = true, .from = score::softmax_selected};

// ---- sigmoid and its like

/// DeepSeek-V3 / R1: a correction bias, 8 groups of which 4 by the sum of their two best.
inline constexpr router_config deepseek_v3{.weights = precision::accumulate,
                                           .from = score::sigmoid,
                                           .selection_bias = key_bias::score,
                                           .groups = 8,
                                           .kept_groups = 4,
                                           .group_by = group_key::top2_sum,
                                           .renorm = renormalise::sum_plus,
                                           .epsilon = 1e-20f,
                                           .scale = 2.5};

/// GLM-4.5, GLM-5, Nemotron-3 Nano: the same without groups. Nemotron-3 Super and Ultra scale by 5.
inline constexpr router_config glm4_moe{.weights = precision::accumulate,
                                        .from = score::sigmoid,
                                        .selection_bias = key_bias::score,
                                        .renorm = renormalise::sum_plus,
                                        .epsilon = 1e-20f,
                                        .scale = 2.5};
inline constexpr router_config glm4_air = with(glm4_moe, &router_config::scale, 1.0), mimo_v2 = glm4_air,
                               kimi_k3 = glm4_air, nemotron3 = glm4_moe,
                               nemotron3_super = with(glm4_moe, &router_config::scale, 5.0),
                               kimi_k2 = with(glm4_moe, &router_config::scale, 2.827),
                               step3 = with(glm4_moe, &router_config::scale, 3.0);

/// MiniMax-M2: sigmoid of logits in the storage type, divided by the plain sum.
inline constexpr router_config minimax_m2{.logits_in = precision::storage,
                                          .from = score::sigmoid,
                                          .selection_bias = key_bias::score,
                                          .renorm = renormalise::sum};

/// MiniMax-M3: a router in single precision; the scale acts on the routed sum after the combine.
inline constexpr router_config minimax_m3{.weights = precision::accumulate,
                                          .from = score::sigmoid,
                                          .selection_bias = key_bias::score,
                                          .renorm = renormalise::sum,
                                          .scale = 2,
                                          .scaled = scale_at::output};

/// LFM2-MoE.
inline constexpr router_config lfm2{.logits_in = precision::storage,
                                    .from = score::sigmoid,
                                    .selection_bias = key_bias::score,
                                    .renorm = renormalise::sum_plus,
                                    .epsilon = 1e-6f};

/// Llama-4: one expert, whose input the sigmoid multiplies.
inline constexpr router_config llama4{.logits_in = precision::storage,
                                      .scores_in = precision::storage,
                                      .from = score::sigmoid,
                                      .acts_on = weight_at::input};

/// DeepSeek-V4 Flash; Pro scales by 2.5. The first layers take their experts from a table (batch::chosen) and learn
/// the weights only.
inline constexpr router_config deepseek_v4{.logits_in = precision::storage,
                                           .from = score::sqrt_softplus,
                                           .selection_bias = key_bias::score,
                                           .renorm = renormalise::sum_plus,
                                           .epsilon = 1e-20f,
                                           .scale = 1.5};
inline constexpr router_config deepseek_v4_hash =
    with(deepseek_v4, &router_config::selection_bias, key_bias::none, &router_config::select, selection::given);

// ---- the first routers, in single precision, which want a capacity beside them

/// Switch Transformer: the best expert, its probability as it is; the router's copy of the input is jittered in
/// training. Transformers' capacity is capacity_rule::fixed per sequence.
inline constexpr router_config switch_transformer{
    .weights = precision::accumulate, .scores_in = precision::storage, .noise = 0.01f};

/// GShard: two experts, divided by their sum; the second stays with probability weight / 0.2.
inline constexpr router_config gshard{.weights = precision::accumulate,
                                      .second = second_expert::random,
                                      .renorm = renormalise::sum_plus,
                                      .epsilon = 1e-9f,
                                      .threshold = 0.2f};
/// Mesh's variant: the second expert stays if its weight is above the threshold.
inline constexpr router_config mesh_threshold = with(gshard, &router_config::second, second_expert::threshold);

/// ST-MoE: two experts, as they are.
inline constexpr router_config st_moe{.weights = precision::accumulate};

/// NLLB-MoE: two experts; nllb_sampling draws the second, nllb_random keeps it with probability 2 p.
inline constexpr router_config nllb{
    .weights = precision::accumulate, .renorm = renormalise::max_of, .epsilon = 0x1p-23f};
inline constexpr router_config nllb_sampling = with(nllb, &router_config::second, second_expert::sampled);
inline constexpr router_config nllb_random =
    with(nllb, &router_config::second, second_expert::random_score, &router_config::threshold, 0.5f);

/// Sparsely-gated MoE (Shazeer 2017): learned noise on the logits, softmax over the chosen.
inline constexpr router_config noisy_top_k{
    .weights = precision::accumulate, .transform = logit_transform::noisy_top_k, .from = score::softmax_selected};

/// V-MoE: normal noise of deviation 1/E on the logits in training.
inline constexpr router_config v_moe{
    .weights = precision::accumulate, .transform = logit_transform::gaussian, .noise = 1};

// ---- routers of papers

/// Phi-3.5-MoE: SparseMixer-v2, two picks in a row; in training the tokens are jittered twice, as transformers does.
inline constexpr router_config phi_moe{.logits_in = precision::storage,
                                       .select = selection::sparse_mixer,
                                       .noise = 0.01f,
                                       .noise_on = input_noise::shared_jitter_twice};

/// Skywork-MoE: logits normalised per token.
inline constexpr router_config skywork{.transform = logit_transform::normalised, .noise = 1};

/// X-MoE: cosine of a projection of the token with learned directions, over a learned temperature; give the width of
/// the projection.
constexpr router_config x_moe(int width) {
    return {.logits = projection::cosine, .projection_width = width, .weights = precision::accumulate};
}

/// As many experts as it takes to gather the probability 0.4; config::top_k bounds their number.
inline constexpr router_config top_p{.select = selection::top_p, .threshold = 0.4f};

/// ReMoE: every expert with a positive logit, weighted by it.
inline constexpr router_config remoe{.select = selection::positive, .from = score::relu};

/// Every expert, by its probability.
inline constexpr router_config every{.select = selection::all};

/// Tables (batch::chosen) with constant weights: Hash Layers. Learned weights: deepseek_v4_hash.
inline constexpr router_config hash{
    .logits = projection::none, .select = selection::given, .from = score::softmax_selected};

/// Uniformly random experts of equal weight, as in THOR; fixed by seed, step and layer.
inline constexpr router_config uniform{
    .logits = projection::none, .select = selection::uniform, .from = score::softmax_selected};

/// Experts drawn from the softmax without replacement, at temperature 1 (options::noise), in training.
inline constexpr router_config sampled{.select = selection::sampled, .noise = 1};

/// Expert choice: each expert takes its best T k / E tokens, or what capacity_rule::share says. A token sees later
/// ones.
inline constexpr router_config expert_choice{.select = selection::expert_choice, .allow_future = true};
/// Mesh's variant: softmax over the tokens, divided by the number of experts that chose the token.
inline constexpr router_config mesh_expert_choice = with(expert_choice, &router_config::from, score::softmax_tokens);

/// BASE: as many tokens for every expert, by an auction in training, which lets a token see later ones. The sigmoid of
/// its affinity blends the expert with the token.
inline constexpr router_config base{
    .select = selection::balanced, .from = score::sigmoid, .acts_on = weight_at::blend, .allow_future = true};

/// Sinkhorn: the best k of a doubly normalised matrix in training. A token sees later ones then. One expert is weighted
/// by the sigmoid of its logit, several (sinkhorn_top_k) by the softmax.
inline constexpr router_config sinkhorn{.select = selection::sinkhorn, .from = score::sigmoid, .allow_future = true};
inline constexpr router_config sinkhorn_top_k = with(sinkhorn, &router_config::from, score::softmax);

}  // namespace gatefold::inline v0::routers
