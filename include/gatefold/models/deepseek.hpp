// DeepSeek's models and Kimi-K2, which has V3's block: a shared expert beside many small ones, attention on a latent
// (arXiv 2401.06066, 2405.04434, 2412.19437, 2507.20534).
#pragma once

#include <gatefold/models/published.hpp>

namespace gatefold::inline v0::models {

inline constexpr published_model deepseek_moe_16b{
    .vocabulary = 102400,
    .hidden = 2048,
    .layers = 28,
    .mixer = attention(2048, 16, 16, 128),
    .norms = 2 * 2048,
    .layer =
        {.hidden = 2048, .ffn = 1408, .experts = 64, .top_k = 6, .router = routers::olmoe, .shared = {.ffn = 2 * 1408}},
    .dense_layers = 1,
    .dense_ffn = 10944};

inline constexpr published_model deepseek_v2_lite{
    .vocabulary = 102400,
    .hidden = 2048,
    .layers = 27,
    .mixer = latent_attention(2048, 16, 0, 512, 128, 64, 128),
    .norms = 2 * 2048,
    .layer =
        {.hidden = 2048, .ffn = 1408, .experts = 64, .top_k = 6, .router = routers::olmoe, .shared = {.ffn = 2 * 1408}},
    .dense_layers = 1,
    .dense_ffn = 10944};

inline constexpr published_model deepseek_v3{.vocabulary = 129280,
                                             .hidden = 7168,
                                             .layers = 61,
                                             .mixer = latent_attention(7168, 128, 1536, 512, 128, 64, 128),
                                             .norms = 2 * 7168,
                                             .layer = {.hidden = 7168,
                                                       .ffn = 2048,
                                                       .experts = 256,
                                                       .top_k = 8,
                                                       .router = routers::deepseek_v3,
                                                       .shared = {.ffn = 2048}},
                                             .dense_layers = 3,
                                             .dense_ffn = 18432};

inline constexpr published_model kimi_k2{
    .vocabulary = 163840,
    .hidden = 7168,
    .layers = 61,
    .mixer = latent_attention(7168, 64, 1536, 512, 128, 64, 128),
    .norms = 2 * 7168,
    .layer = {.hidden = 7168,
              .ffn = 2048,
              .experts = 384,
              .top_k = 8,
              .router = with(routers::deepseek_v3, &router_config::groups, 1, &router_config::kept_groups, 1,
                             &router_config::group_by, group_key::none, &router_config::scale, 2.827),
              .shared = {.ffn = 2048}},
    .dense_layers = 1,
    .dense_ffn = 18432};

}  // namespace gatefold::inline v0::models
