// EXPECT: gatefold::config: a group scored by its two best needs two experts; lower .router.groups
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.groups = 4, .kept_groups = 2, .group_by = gatefold::group_key::top2_sum}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.groups = 2, .kept_groups = 2, .group_by = gatefold::group_key::top2_sum}};
#endif
static_assert(gatefold::detail::checked<c>::value);
