// Qwen's mixture-of-experts models: 1.5 and 2 with a gated shared expert (renormalisation off), 3 with neither
// (arXiv 2505.09388).
#pragma once

#include <gatefold/models/published.hpp>

namespace gatefold::inline v0::models {

inline constexpr published_model qwen1_5_moe_a2_7b{.vocabulary = 151936,
                                                   .hidden = 2048,
                                                   .layers = 24,
                                                   .mixer = attention(2048, 16, 16, 128) + 3 * 2048,
                                                   .norms = 2 * 2048,
                                                   .layer = {.hidden = 2048,
                                                             .ffn = 1408,
                                                             .experts = 60,
                                                             .top_k = 4,
                                                             .router = routers::qwen2,
                                                             .shared = {.ffn = 5632, .gate = true}}};

inline constexpr published_model qwen3_30b_a3b{
    .vocabulary = 151936,
    .hidden = 2048,
    .layers = 48,
    .mixer = attention(2048, 32, 4, 128),
    .norms = 2 * 2048 + 2 * 128,
    .layer = {.hidden = 2048, .ffn = 768, .experts = 128, .top_k = 8, .router = routers::qwen3}};

inline constexpr published_model qwen3_235b_a22b{
    .vocabulary = 151936,
    .hidden = 4096,
    .layers = 94,
    .mixer = attention(4096, 64, 4, 128),
    .norms = 2 * 4096 + 2 * 128,
    .layer = {.hidden = 4096, .ffn = 1536, .experts = 128, .top_k = 8, .router = routers::qwen3}};

}  // namespace gatefold::inline v0::models
