// Configurations that several tests look at.
#pragma once

#include <gatefold/moe/layer.hpp>
#include <gatefold/moe/routers.hpp>

namespace test_layers {

namespace gf = gatefold;

inline constexpr gf::router_config deepseek_router =
    gf::with(gf::routers::deepseek_v3, &gf::router_config::groups, 4, &gf::router_config::kept_groups, 2);

/// Widths that no tile divides.
inline constexpr gf::config mixtral{.hidden = 37, .ffn = 45, .experts = 8, .top_k = 2, .router = gf::routers::mixtral};

/// Groups of experts, biases, and a shared expert behind a gate.
inline constexpr gf::config deepseek{.hidden = 48,
                                     .ffn = 20,
                                     .experts = 16,
                                     .top_k = 4,
                                     .bias = true,
                                     .router = deepseek_router,
                                     .shared = {.ffn = 24, .gate = true}};

/// The same with activations that are clamped.
constexpr gf::config clamped_deepseek(bool shared_bias) {
    return {.hidden = 48,
            .ffn = 40,
            .experts = 16,
            .top_k = 4,
            .act = gf::activation::clamped_swiglu,
            .limit = 1.5f,
            .bias = true,
            .router = deepseek_router,
            .shared = {.ffn = 24, .gate = true, .bias = shared_bias}};
}

}  // namespace test_layers
