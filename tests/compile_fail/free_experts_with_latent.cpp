// EXPECT: gatefold::config: free experts stand beside experts on hidden whose weights act on the output; leave .latent
// and .router.acts_on out
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .free = {.copy = 2}, .latent = 4};
#else
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .free = {.copy = 2}};
#endif
static_assert(gatefold::detail::checked<c>::value);
