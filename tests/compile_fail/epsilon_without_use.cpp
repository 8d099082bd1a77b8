// EXPECT: gatefold::config: epsilon belongs to renormalise::sum_plus and max_of; set .router.epsilon above 0 for them
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.renorm = gatefold::renormalise::sum, .epsilon = 1e-20f}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.renorm = gatefold::renormalise::sum_plus, .epsilon = 1e-20f}};
#endif
static_assert(gatefold::detail::checked<c>::value);
