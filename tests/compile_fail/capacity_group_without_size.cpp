// EXPECT: gatefold::config: groups of fixed size need a size; set .capacity.group_size
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{
    .hidden = 8,
    .ffn = 8,
    .experts = 4,
    .top_k = 2,
    .capacity = {.rule = gatefold::capacity_rule::mesh, .factor = 1.25f, .shared_by = gatefold::capacity_group::fixed}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .capacity = {.rule = gatefold::capacity_rule::mesh,
                                          .factor = 1.25f,
                                          .shared_by = gatefold::capacity_group::fixed,
                                          .group_size = 64}};
#endif
static_assert(gatefold::detail::checked<c>::value);
