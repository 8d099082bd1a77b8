// EXPECT: gatefold::config: assignment over the batch lets a token see later ones; set .router.allow_future to true to
// accept it
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .router = {.select = gatefold::selection::balanced}};
#else
constexpr gatefold::config c{
    .hidden = 8, .ffn = 8, .experts = 4, .router = {.select = gatefold::selection::balanced, .allow_future = true}};
#endif
static_assert(gatefold::detail::checked<c>::value);
