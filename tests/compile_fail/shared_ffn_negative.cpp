// EXPECT: gatefold::config: shared.ffn must not be negative; leave .shared out for none
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .shared = {.ffn = -16}};
#else
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .shared = {.ffn = 16}};
#endif
static_assert(gatefold::detail::checked<c>::value);
