// EXPECT: gatefold::config: expert choice lets a token see later ones; set .router.allow_future to true to accept it
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{
    .hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .router = {.select = gatefold::selection::expert_choice}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.select = gatefold::selection::expert_choice, .allow_future = true}};
#endif
static_assert(gatefold::detail::checked<c>::value);
