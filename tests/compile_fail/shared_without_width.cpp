// EXPECT: gatefold::config: shared settings without a shared expert; set .shared.ffn to its width
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .shared = {.gate = true}};
#else
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .shared = {.ffn = 16, .gate = true}};
#endif
static_assert(gatefold::detail::checked<c>::value);
