// EXPECT: gatefold::config: threshold belongs to top_p and to the second expert; set .router.threshold above 0 for them
// and leave it out else
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .router = {.threshold = 0.4f}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.select = gatefold::selection::top_p, .threshold = 0.4f}};
#endif
static_assert(gatefold::detail::checked<c>::value);
