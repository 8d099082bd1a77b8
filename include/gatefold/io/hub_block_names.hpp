// What families call the tensors of a block: read by hub_block.hpp, which tries them in this order.
#pragma once

#include <initializer_list>

#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0::detail {

/// One way to name an expert's three matrices; `gate` is empty for experts without one.
struct expert_names {
    const char *gate, *up, *down;
};
inline constexpr expert_names gated_names[] = {
    {"gate_proj", "up_proj", "down_proj"}, {"w1", "w3", "w2"}, {"linear", "linear_v", "linear_1"}};
inline constexpr expert_names plain_names[] = {{"", "up_proj", "down_proj"}, {"", "wi", "wo"}, {"", "fc1", "fc2"}};

using name_list = std::initializer_list<const char*>;
inline constexpr const char* router_names[] = {"gate.weight",         "router.weight",
                                               "gate.wg.weight",      "router.classifier.weight",
                                               "router.layer.weight", "router.proj.weight"};
inline constexpr const char* router_bias_names[] = {"router.bias", "gate.bias"};
inline constexpr const char* selection_bias_names[] = {"gate.e_score_correction_bias",
                                                       "e_score_correction_bias",
                                                       "moe_statics.e_score_correction_bias",
                                                       "router.e_score_correction_bias",
                                                       "expert_bias",
                                                       "gate.moe_statics.e_score_correction_bias"};
inline constexpr const char* shared_roots[] = {"shared_expert.", "shared_experts.", "shared_mlp."};

/// How names of a block begin; others under its prefix belong to the layer around it (Gemma-4, Arctic).
inline constexpr const char* block_roots[] = {
    "experts.",    "router.",       "gate.",           "moe_statics.",    "shared_expert",
    "shared_mlp.", "input_linear.", "output_linear.",  "mlp1_weight",     "mlp1_bias",
    "mlp2_weight", "mlp2_bias",     "fc1_latent_proj", "fc2_latent_proj", "e_score_correction_bias",
    "expert_bias"};

}  // namespace gatefold::inline v0::detail
