// Mixtral (arXiv 2401.04088): eight experts in every block, two per token.
#pragma once

#include <gatefold/models/published.hpp>

namespace gatefold::inline v0::models {

inline constexpr published_model mixtral_8x7b{
    .vocabulary = 32000,
    .hidden = 4096,
    .layers = 32,
    .mixer = attention(4096, 32, 8, 128),
    .norms = 2 * 4096,
    .layer = {.hidden = 4096, .ffn = 14336, .experts = 8, .top_k = 2, .router = routers::mixtral}};

inline constexpr published_model mixtral_8x22b{
    .vocabulary = 32768,
    .hidden = 6144,
    .layers = 56,
    .mixer = attention(6144, 48, 8, 128),
    .norms = 2 * 6144,
    .layer = {.hidden = 6144, .ffn = 16384, .experts = 8, .top_k = 2, .router = routers::mixtral}};

}  // namespace gatefold::inline v0::models
