// EXPECT: gatefold::config: groups need a group key; set .router.group_by exactly when .router.groups is above 1
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .router = {.groups = 2}};
#else
constexpr gatefold::config c{
    .hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .router = {.groups = 2, .group_by = gatefold::group_key::max}};
#endif
static_assert(gatefold::detail::checked<c>::value);
