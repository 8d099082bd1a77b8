// EXPECT: gatefold::config: counts of free experts must not be negative; set .free to zero or more of each kind
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .free = {.zero = -1}};
#else
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .free = {.zero = 2}};
#endif
static_assert(gatefold::detail::checked<c>::value);
