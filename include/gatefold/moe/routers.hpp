// The routers of published models, as constants: config{..., .router = routers::deepseek_v3}.
//
// Each is a point in the axes of router_config; with(constant, &router_config::field, value) makes a variant.
#pragma once

#include <gatefold/config.hpp>

namespace gatefold::inline v0::routers {

/// Mixtral, Qwen3, MiniMax-01, Arctic: softmax over all, top-k, divided by their sum.
inline constexpr router_config mixtral{.renorm = renormalise::sum};
inline constexpr router_config qwen3 = mixtral;

/// OLMoE, Qwen1.5-MoE, Qwen2-57B, DeepSeekMoE-16B, DeepSeek-V2-Lite: softmax over all, top-k, as they are.
inline constexpr router_config olmoe{};
inline constexpr router_config qwen2 = olmoe;

/// Switch Transformer: softmax in single precision, the best expert, its probability as it is.
inline constexpr router_config switch_transformer{.weights = precision::accumulate};

/// DeepSeek-V3 / R1: sigmoid scores, correction bias, 8 groups of which 4 by the sum of their two best.
inline constexpr router_config deepseek_v3{.weights = precision::accumulate,
                                           .from = score::sigmoid,
                                           .selection_bias = key_bias::score,
                                           .groups = 8,
                                           .kept_groups = 4,
                                           .group_by = group_key::top2_sum,
                                           .renorm = renormalise::sum_plus,
                                           .epsilon = 1e-20f,
                                           .scale = 2.5f};

/// gpt-oss: a biased projection, top-k of the logits, softmax over those.
inline constexpr router_config gpt_oss{.bias = true, .from = score::softmax_selected};

}  // namespace gatefold::inline v0::routers
