// EXPECT: gatefold::config: one expert has no router; leave .router out or set .experts to two or more
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .router = {.from = gatefold::score::sigmoid}};
#else
constexpr gatefold::config c{.hidden = 8, .ffn = 8};
#endif
static_assert(gatefold::detail::checked<c>::value);
