// EXPECT: gatefold::config: top_k must lie between 1 and experts; lower .top_k or raise .experts
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 5};
#else
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2};
#endif
static_assert(gatefold::detail::checked<c>::value);
