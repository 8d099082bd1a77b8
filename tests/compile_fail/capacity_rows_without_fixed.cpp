// EXPECT: gatefold::config: capacity.rows belongs to the fixed rule; set it above 0 for it and leave it out else
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .capacity = {.rule = gatefold::capacity_rule::mesh, .factor = 1, .rows = 4}};
#else
constexpr gatefold::config c{
    .hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .capacity = {.rule = gatefold::capacity_rule::fixed, .rows = 4}};
#endif
static_assert(gatefold::detail::checked<c>::value);
