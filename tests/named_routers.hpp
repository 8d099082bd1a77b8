// Every named router in a layer of its own, for tests that go through all of them.
//
//     for_each_named_router<visitor>()   calls visitor::visit<config>(name) for each
//
// Constants that are equal under several names (qwen3 is mixtral) stand here once; `names` knows them all.
#pragma once

#include <gatefold/moe/routers.hpp>

namespace named_routers {

namespace gf = gatefold;

/// A small layer: its shape is what the router needs, not what the model has.
constexpr gf::config layer_of(int experts, int top_k, gf::router_config r, gf::capacity_config capacity = {},
                              gf::free_experts free = {}) {
    gf::config c{.hidden = 12, .ffn = 2, .experts = experts, .top_k = top_k};
    c.router = r;
    c.capacity = capacity;
    c.free = free;
    return c;
}

template <class Visitor>
void visit_softmax() {
    using namespace gf::routers;
    Visitor::template visit<layer_of(7, 2, mixtral)>("mixtral");
    Visitor::template visit<layer_of(7, 3, olmoe)>("olmoe");
    Visitor::template visit<layer_of(7, 3, deepseek_moe)>("deepseek_moe");
    Visitor::template visit<layer_of(16, 4, deepseek_v2)>("deepseek_v2");
    Visitor::template visit<layer_of(7, 3, dbrx)>("dbrx");
    Visitor::template visit<layer_of(7, 3, hunyuan, {.rule = gf::capacity_rule::hunyuan})>("hunyuan");
    Visitor::template visit<layer_of(7, 3, ernie)>("ernie");
    Visitor::template visit<layer_of(7, 3, gemma4)>("gemma4");
    Visitor::template visit<layer_of(5, 3, longcat, {}, {.copy = 3})>("longcat");
    Visitor::template visit<layer_of(4, 2, moe_plus_plus, {}, {.constant = 2, .copy = 1, .zero = 1})>("moe_plus_plus");
    Visitor::template visit<layer_of(7, 3, granite)>("granite");
    Visitor::template visit<layer_of(7, 3, gpt_oss)>("gpt_oss");
}

template <class Visitor>
void visit_sigmoid() {
    using namespace gf::routers;
    Visitor::template visit<layer_of(16, 4, deepseek_v3)>("deepseek_v3");
    Visitor::template visit<layer_of(7, 3, glm4_moe)>("glm4_moe");
    Visitor::template visit<layer_of(7, 3, glm4_air)>("glm4_air");
    Visitor::template visit<layer_of(7, 3, nemotron3_super)>("nemotron3_super");
    Visitor::template visit<layer_of(7, 3, kimi_k2)>("kimi_k2");
    Visitor::template visit<layer_of(7, 3, step3)>("step3");
    Visitor::template visit<layer_of(7, 3, minimax_m2)>("minimax_m2");
    Visitor::template visit<layer_of(7, 3, minimax_m3)>("minimax_m3");
    Visitor::template visit<layer_of(7, 3, lfm2)>("lfm2");
    Visitor::template visit<layer_of(7, 1, llama4)>("llama4");
    Visitor::template visit<layer_of(7, 3, deepseek_v4)>("deepseek_v4");
    Visitor::template visit<layer_of(7, 3, deepseek_v4_hash)>("deepseek_v4_hash");
}

template <class Visitor>
void visit_limited() {
    using namespace gf::routers;
    constexpr gf::capacity_config mesh{.rule = gf::capacity_rule::mesh, .factor = 1.25f};
    Visitor::template visit<layer_of(
        5, 1, switch_transformer,
        {.rule = gf::capacity_rule::fixed, .rows = 4, .shared_by = gf::capacity_group::fixed, .group_size = 16})>(
        "switch_transformer");
    Visitor::template visit<layer_of(
        5, 2, gshard, {.rule = gf::capacity_rule::mesh, .factor = 1.25f, .behind = gf::offset_by::kept})>("gshard");
    Visitor::template visit<layer_of(5, 2, mesh_threshold, mesh)>("mesh_threshold");
    Visitor::template visit<layer_of(5, 2, st_moe, {.rule = gf::capacity_rule::flaxformer, .factor = 1.25f})>("st_moe");
    constexpr gf::capacity_config nllb_rows{
        .rule = gf::capacity_rule::nllb, .factor = 0.5f, .keeps = gf::priority::importance, .renormalise_kept = true};
    Visitor::template visit<layer_of(5, 2, nllb, nllb_rows)>("nllb");
    Visitor::template visit<layer_of(5, 2, nllb_sampling, nllb_rows)>("nllb_sampling");
    Visitor::template visit<layer_of(5, 2, nllb_random, nllb_rows)>("nllb_random");
    Visitor::template visit<layer_of(7, 2, noisy_top_k)>("noisy_top_k");
    Visitor::template visit<layer_of(
        7, 2, v_moe, {.rule = gf::capacity_rule::megatron, .factor = 1.05f, .keeps = gf::priority::importance})>(
        "v_moe");
}

template <class Visitor>
void visit_papers() {
    using namespace gf::routers;
    Visitor::template visit<layer_of(7, 2, phi_moe)>("phi_moe");
    Visitor::template visit<layer_of(7, 2, skywork)>("skywork");
    Visitor::template visit<layer_of(7, 2, x_moe(5))>("x_moe");
    Visitor::template visit<layer_of(7, 4, top_p)>("top_p");
    Visitor::template visit<layer_of(7, 1, remoe)>("remoe");
    Visitor::template visit<layer_of(7, 1, every)>("every");
    Visitor::template visit<layer_of(7, 2, hash)>("hash");
    Visitor::template visit<layer_of(7, 2, uniform)>("uniform");
    Visitor::template visit<layer_of(7, 2, sampled)>("sampled");
    Visitor::template visit<layer_of(7, 2, expert_choice)>("expert_choice");
    Visitor::template visit<layer_of(7, 2, mesh_expert_choice)>("mesh_expert_choice");
    Visitor::template visit<layer_of(7, 1, base)>("base");
    Visitor::template visit<layer_of(7, 1, sinkhorn)>("sinkhorn");
    Visitor::template visit<layer_of(7, 2, sinkhorn_top_k)>("sinkhorn_top_k");
}

template <class Visitor>
void for_each_named_router() {
    visit_softmax<Visitor>();
    visit_sigmoid<Visitor>();
    visit_limited<Visitor>();
    visit_papers<Visitor>();
}

/// Every name in routers.hpp, and under which of those above it is visited.
inline constexpr const char* names[][2] = {{"qwen3", "mixtral"},      {"qwen3_next", "mixtral"},
                                           {"minimax_01", "mixtral"}, {"arctic", "mixtral"},
                                           {"qwen2_moe", "olmoe"},    {"qwen2", "olmoe"},
                                           {"jamba", "olmoe"},        {"deepseek_v2_lite", "deepseek_moe"},
                                           {"grok", "deepseek_moe"},  {"mimo_v2", "glm4_air"},
                                           {"kimi_k3", "glm4_air"},   {"nemotron3", "glm4_moe"}};

}  // namespace named_routers
