// EXPECT: gatefold::config: share_sum adds top_k / kept_groups keys of a group; raise .top_k to .router.kept_groups
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 1,
                             .router = {.groups = 4, .kept_groups = 2, .group_by = gatefold::group_key::share_sum}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.groups = 4, .kept_groups = 2, .group_by = gatefold::group_key::share_sum}};
#endif
static_assert(gatefold::detail::checked<c>::value);
