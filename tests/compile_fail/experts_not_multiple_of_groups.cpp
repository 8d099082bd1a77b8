// EXPECT: gatefold::config: experts must be a multiple of groups; change .experts or .router.groups
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.groups = 3, .kept_groups = 2, .group_by = gatefold::group_key::max}};
#else
constexpr gatefold::config c{
    .hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .router = {.groups = 2, .group_by = gatefold::group_key::max}};
#endif
static_assert(gatefold::detail::checked<c>::value);
