// The layers that the benches measure, on every backend.
#pragma once

#include <gatefold/gatefold.hpp>

namespace bench::shapes {

/// A layer that fits the second-level cache: 12.6 MB in float.
inline constexpr gatefold::config tiny{
    .hidden = 256, .ffn = 512, .experts = 8, .top_k = 2, .router = gatefold::routers::mixtral};

/// OLMoE-1B-7B: 1.6 GB in float.
inline constexpr gatefold::config olmoe{
    .hidden = 2048, .ffn = 1024, .experts = 64, .top_k = 8, .router = gatefold::routers::olmoe};

/// Qwen3-30B-A3B: many small experts, 2.4 GB in float.
inline constexpr gatefold::config qwen3{
    .hidden = 2048, .ffn = 768, .experts = 128, .top_k = 8, .router = gatefold::routers::qwen3};

/// gpt-oss-20b: biases, clamped activation, widths that are no power of two; 3.2 GB in float.
inline constexpr gatefold::config gptoss{.hidden = 2880,
                                         .ffn = 2880,
                                         .experts = 32,
                                         .top_k = 4,
                                         .act = gatefold::activation::clamped_swiglu,
                                         .limit = 7,
                                         .bias = true,
                                         .router = gatefold::routers::gpt_oss};

/// Mixtral-8x7B: few large experts, 5.6 GB in float.
inline constexpr gatefold::config mixtral{
    .hidden = 4096, .ffn = 14336, .experts = 8, .top_k = 2, .router = gatefold::routers::mixtral};

}  // namespace bench::shapes
