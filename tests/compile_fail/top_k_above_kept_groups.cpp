// EXPECT: gatefold::config: top_k exceeds the experts of the kept groups; raise .router.kept_groups
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 3,
                             .router = {.groups = 2, .kept_groups = 1, .group_by = gatefold::group_key::max}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.groups = 2, .kept_groups = 1, .group_by = gatefold::group_key::max}};
#endif
static_assert(gatefold::detail::checked<c>::value);
