// EXPECT: gatefold::config: top_p adds up probabilities; set .router.from to score::softmax
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{
    .hidden = 8,
    .ffn = 8,
    .experts = 4,
    .top_k = 2,
    .router = {.select = gatefold::selection::top_p, .from = gatefold::score::sigmoid, .threshold = 0.4f}};
#else
constexpr gatefold::config c{
    .hidden = 8,
    .ffn = 8,
    .experts = 4,
    .top_k = 2,
    .router = {.select = gatefold::selection::top_p, .from = gatefold::score::softmax, .threshold = 0.4f}};
#endif
static_assert(gatefold::detail::checked<c>::value);
