// EXPECT: gatefold::config: dropout of experts is a probability; set .dropout to 0 or more, and below 1
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .dropout = 1};
#else
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .dropout = 0.4f};
#endif
static_assert(gatefold::detail::checked<c>::value);
