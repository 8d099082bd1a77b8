// EXPECT: gatefold::config: a policy for the second expert needs top_k 2; set .top_k to 2
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{
    .hidden = 8, .ffn = 8, .experts = 4, .top_k = 3, .router = {.second = gatefold::second_expert::random}};
#else
constexpr gatefold::config c{
    .hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .router = {.second = gatefold::second_expert::random}};
#endif
static_assert(gatefold::detail::checked<c>::value);
