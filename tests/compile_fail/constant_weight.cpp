// EXPECT: gatefold::config: top_k 1 with renormalised weights gives weight 1 and no router gradient; set .router.renorm
// to none or .router.allow_constant_weight to true
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .router = {.renorm = gatefold::renormalise::sum}};
#else
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4};
#endif
static_assert(gatefold::detail::checked<c>::value);
