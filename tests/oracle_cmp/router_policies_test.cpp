// ctest: heavy timeout=900
// The router alone against the oracle: kinds of selection, policies of the second expert, capacity, named routers.
#include <tests/routing_comparison.hpp>

using namespace routing_comparison;
namespace routers = gf::routers;

BOOST_AUTO_TEST_SUITE(oracle)
BOOST_AUTO_TEST_SUITE(router_policies)

BOOST_AUTO_TEST_CASE(selections) {
    compare_all<with_router(6, 2, routers::phi_moe)>();
    compare_all<with_router(6, 2, {.bias = true, .select = gf::selection::sparse_mixer, .scale = 2, .noise = 0.3f})>();
    compare_all<with_router(7, 3, routers::sampled)>();
    compare_all<with_router(
        7, 3, {.bias = true, .select = gf::selection::top_p, .renorm = gf::renormalise::sum, .threshold = 0.6f})>();
    compare_all<with_router(7, 7, routers::top_p)>();
    compare_all<with_router(6, 1, {.bias = true, .select = gf::selection::positive, .from = gf::score::relu})>();
    compare_all<with_router(6, 1, {.bias = true, .select = gf::selection::all})>();
    compare_all<with_router(6, 2,
                            {.select = gf::selection::given,
                             .from = gf::score::sqrt_softplus,
                             .renorm = gf::renormalise::sum_plus,
                             .epsilon = 1e-20f})>();
    compare_all<with_router(6, 2, routers::hash)>();
    compare_all<with_router(6, 2, routers::uniform)>();
    compare_all<with_router(6, 2, routers::expert_choice)>();
    compare_all<with_router(4, 1, routers::base)>();
    compare_all<with_router(5, 2, routers::sinkhorn_top_k)>();
}

BOOST_AUTO_TEST_CASE(second_experts) {
    compare_all<with_router(5, 2, routers::gshard)>();
    compare_all<with_router(5, 2, routers::mesh_threshold)>();
    compare_all<with_router(5, 2, routers::nllb_sampling)>();
    compare_all<with_router(5, 2, routers::nllb_random)>();
    compare_all<with_router(
        5, 2, {.bias = true, .second = gf::second_expert::threshold, .expert_scale = true, .threshold = 0.3f})>();
    compare_all<with_router(5, 2,
                            {.bias = true,
                             .second = gf::second_expert::random,
                             .renorm = gf::renormalise::sum,
                             .expert_scale = true,
                             .threshold = 0.6f})>();
    compare_all<with_router(5, 2, routers::nllb_random,
                            {.rule = gf::capacity_rule::nllb,
                             .factor = 0.3f,
                             .keeps = gf::priority::importance,
                             .renormalise_kept = true})>();
}

BOOST_AUTO_TEST_CASE(capacities) {
    using gf::capacity_rule, gf::priority;
    constexpr gf::router_config divided{.bias = true, .renorm = gf::renormalise::sum};
    compare_all<with_router(3, 2, divided, {.rule = capacity_rule::mesh, .factor = 0.5f})>();
    compare_all<with_router(3, 2, divided,
                            {.rule = capacity_rule::flaxformer, .factor = 0.75f, .behind = gf::offset_by::kept})>();
    compare_all<with_router(
        5, 2, divided,
        {.rule = capacity_rule::megatron, .factor = 0.8f, .minimum = 2, .keeps = priority::probability})>();
    compare_all<with_router(
        5, 3, divided,
        {.rule = capacity_rule::deepspeed, .factor = 0.5f, .alignment = 2, .keeps = priority::position})>();
    compare_all<with_router(5, 3, {.bias = true},
                            {.rule = capacity_rule::deepspeed, .factor = -0.5f, .keeps = priority::importance_sum})>();
    compare_all<with_router(
        5, 2, routers::nllb,
        {.rule = capacity_rule::nllb, .factor = 0.25f, .keeps = priority::importance, .renormalise_kept = true})>();
    compare_all<with_router(6, 2, routers::hunyuan, {.rule = capacity_rule::hunyuan, .keeps = priority::slot_major})>();
    compare_all<with_router(4, 2, divided,
                            {.rule = capacity_rule::megatron,
                             .factor = 1,
                             .keeps = priority::probability,
                             .shared_by = gf::capacity_group::fixed,
                             .group_size = 6,
                             .renormalise_kept = true})>();
    compare_all<with_router(
        6, 2, {.bias = true, .from = gf::score::sigmoid, .renorm = gf::renormalise::sum_plus, .epsilon = 1e-20f},
        {.rule = capacity_rule::megatron,
         .factor = 0.6f,
         .keeps = priority::importance,
         .behind = gf::offset_by::kept,
         .renormalise_kept = true})>();
    compare_all<with_router(4, 2, {.bias = true, .from = gf::score::softmax_selected},
                            {.rule = capacity_rule::megatron, .factor = 0.6f, .keeps = priority::importance})>();
}

BOOST_AUTO_TEST_CASE(free_experts) {
    compare_all<with_router(4, 2, routers::moe_plus_plus, {}, {.constant = 1, .copy = 1, .zero = 2})>();
    compare_all<with_router(4, 3, routers::longcat, {}, {.copy = 4})>();
    compare_all<with_router(3, 2, {.bias = true, .from = gf::score::sigmoid, .renorm = gf::renormalise::sum}, {},
                            {.zero = 3})>();
}

BOOST_AUTO_TEST_CASE(named) {
    compare_all<with_router(8, 2, routers::mixtral)>();
    compare_all<with_router(8, 1, routers::switch_transformer, {.rule = gf::capacity_rule::mesh, .factor = 1.25f})>();
    compare_all<with_router(8, 2, routers::dbrx)>();
    compare_all<with_router(16, 4, routers::deepseek_v2)>();
    compare_all<with_router(16, 6, routers::deepseek_v3)>();
    compare_all<with_router(8, 3, routers::kimi_k2)>();
    compare_all<with_router(8, 3, routers::ernie)>();
    compare_all<with_router(8, 2, routers::gpt_oss)>();
    compare_all<with_router(8, 1, routers::llama4)>();
    compare_all<with_router(8, 3, routers::deepseek_v4)>();
    compare_all<with_router(8, 3, routers::deepseek_v4_hash)>();
    compare_all<with_router(8, 2, routers::minimax_m3)>();
    compare_all<with_router(8, 2, routers::lfm2)>();
    compare_all<with_router(8, 2, routers::gemma4)>();
    compare_all<with_router(8, 2, routers::noisy_top_k)>();
    compare_all<with_router(8, 2, routers::v_moe)>();
    compare_all<with_router(8, 2, routers::skywork)>();
    compare_all<with_router(8, 2, routers::x_moe(5))>();
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
