// EXPECT: gatefold::config: power belongs to renormalise::norm; set .router.power above 0 for it
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .router = {.power = 2}};
#else
constexpr gatefold::config c{
    .hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .router = {.renorm = gatefold::renormalise::norm, .power = 2}};
#endif
static_assert(gatefold::detail::checked<c>::value);
