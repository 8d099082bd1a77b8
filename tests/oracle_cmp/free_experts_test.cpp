// ctest: heavy timeout=600
// Layers with experts that compute nothing, and with routers whose slots may stay empty, against the oracle: forward
// and every gradient.
#include <tests/layer_comparison.hpp>

namespace gf = gatefold;

BOOST_AUTO_TEST_SUITE(oracle)
BOOST_AUTO_TEST_SUITE(free_experts)

BOOST_AUTO_TEST_CASE(copies) {
    constexpr gf::config c{
        .hidden = 20, .ffn = 9, .experts = 5, .top_k = 3, .router = gf::routers::longcat, .free = {.copy = 3}};
    comparison::compare<gf::layer<c, double>>(31, 1);
    comparison::compare<gf::layer<c, float>>(31, 2, 3);
    comparison::compare<gf::layer<c, gf::bf16>>(31, 3);
}
BOOST_AUTO_TEST_CASE(constants) {
    constexpr gf::config c{.hidden = 19,
                           .ffn = 6,
                           .experts = 3,
                           .top_k = 3,
                           .router = {.renorm = gf::renormalise::sum},
                           .free = {.constant = 3, .copy = 1}};
    comparison::compare<gf::layer<c, double>>(26, 4);
    comparison::compare<gf::layer<c, double>>(26, 4, 5);
    comparison::compare<gf::layer<c, float>>(26, 5);
}
BOOST_AUTO_TEST_CASE(all_kinds) {
    constexpr gf::config c{.hidden = 16,
                           .ffn = 6,
                           .experts = 4,
                           .top_k = 2,
                           .router = {.from = gf::score::sigmoid},
                           .free = {.constant = 1, .copy = 1, .zero = 2}};
    comparison::compare<gf::layer<c, double>>(40, 6);
    comparison::compare<gf::layer<c, float>>(1, 7);
}
BOOST_AUTO_TEST_CASE(expert_scales) {
    constexpr gf::config c{.hidden = 16,
                           .ffn = 6,
                           .experts = 6,
                           .top_k = 2,
                           .router = {.renorm = gf::renormalise::sum, .expert_scale = true}};
    comparison::compare<gf::layer<c, double>>(22, 8);
}
BOOST_AUTO_TEST_CASE(variable_numbers) {
    constexpr gf::config top_p{.hidden = 16, .ffn = 6, .experts = 6, .top_k = 4, .router = gf::routers::top_p};
    comparison::compare<gf::layer<top_p, double>>(22, 9);
    constexpr gf::config positive{.hidden = 16, .ffn = 6, .experts = 6, .top_k = 1, .router = gf::routers::remoe};
    comparison::compare<gf::layer<positive, double>>(22, 10);
    constexpr gf::config every{.hidden = 16, .ffn = 6, .experts = 6, .top_k = 1, .router = gf::routers::every};
    comparison::compare<gf::layer<every, double>>(22, 11);
    constexpr gf::config choice{.hidden = 16, .ffn = 6, .experts = 6, .top_k = 2, .router = gf::routers::expert_choice};
    comparison::compare<gf::layer<choice, double>>(22, 12);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
