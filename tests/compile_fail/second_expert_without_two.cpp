// EXPECT: gatefold::config: a policy for the second expert needs a top-k choice of two; set .top_k to 2 and
// .router.select to selection::top_k
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 3,
                             .router = {.second = gatefold::second_expert::random, .threshold = 0.2f}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.second = gatefold::second_expert::random, .threshold = 0.2f}};
#endif
static_assert(gatefold::detail::checked<c>::value);
