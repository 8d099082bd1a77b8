// OLMoE (arXiv 2409.02060): 64 experts, 8 per token, weights as the softmax gives them.
#pragma once

#include <gatefold/models/published.hpp>

namespace gatefold::inline v0::models {

inline constexpr published_model olmoe_1b_7b{
    .vocabulary = 50304,
    .hidden = 2048,
    .layers = 16,
    .mixer = attention(2048, 16, 16, 128),
    .norms = 4 * 2048,
    .layer = {.hidden = 2048, .ffn = 1024, .experts = 64, .top_k = 8, .router = routers::olmoe}};

}  // namespace gatefold::inline v0::models
