// EXPECT: gatefold::config: balanced assignment gives a token one expert; set .top_k to 1
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.select = gatefold::selection::balanced, .allow_future = true}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 1,
                             .router = {.select = gatefold::selection::balanced, .allow_future = true}};
#endif
static_assert(gatefold::detail::checked<c>::value);
