// EXPECT: gatefold::config: latent_norm without a latent width; set .latent to the width the experts work on
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .latent_norm = true};
#else
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .latent = 4, .latent_norm = true};
#endif
static_assert(gatefold::detail::checked<c>::value);
