// EXPECT: gatefold::config: hidden must be at least 1; set .hidden to the width of a token
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.ffn = 8};
#else
constexpr gatefold::config c{.hidden = 8, .ffn = 8};
#endif
static_assert(gatefold::detail::checked<c>::value);
