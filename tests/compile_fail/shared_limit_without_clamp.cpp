// EXPECT: gatefold::config: shared.limit belongs to clamped activations; set it above 0 for them and leave it out else
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .shared = {.ffn = 16, .limit = 7}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .shared = {.ffn = 16, .act = gatefold::activation::clamped_swiglu, .limit = 7}};
#endif
static_assert(gatefold::detail::checked<c>::value);
