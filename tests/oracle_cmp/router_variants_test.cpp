// ctest: heavy timeout=900
// The router alone against the oracle: p-norms, Megatron's group score, experts that choose, fixed capacity, noise on
// the input.
#include <tests/routing_comparison.hpp>

using namespace routing_comparison;
namespace routers = gf::routers;

BOOST_AUTO_TEST_SUITE(oracle)
BOOST_AUTO_TEST_SUITE(router_variants)

BOOST_AUTO_TEST_CASE(norms) {
    compare_all<with_router(6, 3, {.bias = true, .renorm = gf::renormalise::norm, .power = 1})>();
    compare_all<with_router(
        6, 3,
        {.bias = true, .from = gf::score::sigmoid, .renorm = gf::renormalise::norm, .power = 2, .scale = 2.446})>();
    compare_all<with_router(
        6, 2, {.from = gf::score::identity, .renorm = gf::renormalise::norm, .power = 3, .expert_scale = true})>();
    compare_all<with_router(5, 2, {.renorm = gf::renormalise::norm, .power = 2},
                            {.rule = gf::capacity_rule::fixed, .rows = 3, .renormalise_kept = true})>();
}

BOOST_AUTO_TEST_CASE(share_of_k_per_group) {
    constexpr gf::router_config r{.bias = true,
                                  .from = gf::score::sigmoid,
                                  .selection_bias = gf::key_bias::score,
                                  .groups = 3,
                                  .kept_groups = 2,
                                  .group_by = gf::group_key::share_sum};
    compare_all<with_router(12, 6, r)>();
    compare_all<with_router(12, 2, r)>();
    compare_all<with_router(12, 5, gf::with(r, &gf::router_config::selection_bias, gf::key_bias::none))>();
}

BOOST_AUTO_TEST_CASE(experts_that_choose) {
    compare_all<with_router(6, 2, routers::mesh_expert_choice)>();
    compare_all<with_router(
        6, 2, gf::with(routers::mesh_expert_choice, &gf::router_config::scale, 1.3),
        {.rule = gf::capacity_rule::share, .factor = 1.5f, .shared_by = gf::capacity_group::fixed, .group_size = 9})>();
    compare_all<with_router(5, 1, routers::expert_choice,
                            {.rule = gf::capacity_rule::share,
                             .factor = 2.5f,
                             .shared_by = gf::capacity_group::fixed,
                             .group_size = 12})>();
    compare_all<with_router(5, 1, routers::expert_choice, {.rule = gf::capacity_rule::share, .factor = 1.75f})>();
}

BOOST_AUTO_TEST_CASE(named) {
    compare_all<with_router(8, 2, routers::granite)>();
    compare_all<with_router(8, 2, routers::minimax_m2)>();
    compare_all<with_router(8, 2, routers::hunyuan)>();
    compare_all<with_router(8, 3, routers::glm4_moe)>();
    compare_all<with_router(6, 1, routers::sinkhorn)>();
    compare_all<with_router(6, 1, gf::with(routers::base, &gf::router_config::bias, true))>();
}

BOOST_AUTO_TEST_CASE(fixed_capacity) {
    compare_all<with_router(8, 1, routers::switch_transformer, {.rule = gf::capacity_rule::fixed, .rows = 3})>();
    compare_all<with_router(5, 2, routers::gshard,
                            {.rule = gf::capacity_rule::fixed,
                             .rows = 2,
                             .keeps = gf::priority::importance,
                             .shared_by = gf::capacity_group::fixed,
                             .group_size = 7})>();
}

BOOST_AUTO_TEST_CASE(noise_on_the_input) {
    compare_all<with_router(6, 2, {.bias = true, .noise = 0.3f, .noise_on = gf::input_noise::dropout})>();
    compare_all<with_router(6, 2,
                            {.bias = true,
                             .renorm = gf::renormalise::sum,
                             .noise = 0.2f,
                             .noise_on = gf::input_noise::shared_jitter_twice})>();
    compare_all<with_router(6, 2,
                            {.input = gf::router_input::unit_length,
                             .bias = true,
                             .noise = 0.2f,
                             .noise_on = gf::input_noise::shared_jitter})>();
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
