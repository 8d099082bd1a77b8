// EXPECT: gatefold::config: groups limit a top-k choice only; set .router.select to selection::top_k
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.select = gatefold::selection::positive,
                                        .from = gatefold::score::relu,
                                        .groups = 2,
                                        .kept_groups = 2,
                                        .group_by = gatefold::group_key::max}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.groups = 2, .kept_groups = 2, .group_by = gatefold::group_key::max}};
#endif
static_assert(gatefold::detail::checked<c>::value);
