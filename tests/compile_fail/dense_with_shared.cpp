// EXPECT: gatefold::config: a dense layer has no shared expert; widen .ffn instead
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .shared = {.ffn = 16}};
#else
constexpr gatefold::config c{.hidden = 8, .ffn = 8};
#endif
static_assert(gatefold::detail::checked<c>::value);
