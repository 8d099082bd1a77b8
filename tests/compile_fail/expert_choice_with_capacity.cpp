// EXPECT: gatefold::config: expert choice is a capacity itself; leave .capacity out or set its rule to share
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.select = gatefold::selection::expert_choice, .allow_future = true},
                             .capacity = {.rule = gatefold::capacity_rule::mesh, .factor = 1}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.select = gatefold::selection::expert_choice, .allow_future = true},
                             .capacity = {.rule = gatefold::capacity_rule::share, .factor = 1}};
#endif
static_assert(gatefold::detail::checked<c>::value);
