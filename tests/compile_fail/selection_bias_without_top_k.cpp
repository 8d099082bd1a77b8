// EXPECT: gatefold::config: a selection bias steers a top-k choice only; set .router.select to selection::top_k
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{
    .hidden = 8,
    .ffn = 8,
    .experts = 4,
    .top_k = 2,
    .router = {.select = gatefold::selection::uniform, .selection_bias = gatefold::key_bias::score}};
#else
constexpr gatefold::config c{
    .hidden = 8,
    .ffn = 8,
    .experts = 4,
    .top_k = 2,
    .router = {.select = gatefold::selection::top_k, .selection_bias = gatefold::key_bias::score}};
#endif
static_assert(gatefold::detail::checked<c>::value);
