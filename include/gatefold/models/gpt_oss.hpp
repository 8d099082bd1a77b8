// gpt-oss: biases everywhere, the router included, clamped SwiGLU, a learned sink per head.
#pragma once

#include <gatefold/models/published.hpp>

namespace gatefold::inline v0::models {

inline constexpr published_model gpt_oss_20b{
    .vocabulary = 201088,
    .hidden = 2880,
    .layers = 24,
    .mixer = attention(2880, 64, 8, 64) + attention_biases(2880, 64, 8, 64) + 64,
    .norms = 2 * 2880,
    .layer = {.hidden = 2880,
              .ffn = 2880,
              .experts = 32,
              .top_k = 4,
              .act = activation::clamped_swiglu,
              .limit = 7,
              .bias = true,
              .router = routers::gpt_oss}};

inline constexpr published_model gpt_oss_120b{.vocabulary = 201088,
                                              .hidden = 2880,
                                              .layers = 36,
                                              .mixer = gpt_oss_20b.mixer,
                                              .norms = 2 * 2880,
                                              .layer = with(gpt_oss_20b.layer, &config::experts, 128)};

}  // namespace gatefold::inline v0::models
