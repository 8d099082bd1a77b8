// EXPECT: gatefold::config: capacity settings without a capacity; set .capacity.rule
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .capacity = {.factor = 1.25f}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .capacity = {.rule = gatefold::capacity_rule::mesh, .factor = 1.25f}};
#endif
static_assert(gatefold::detail::checked<c>::value);
