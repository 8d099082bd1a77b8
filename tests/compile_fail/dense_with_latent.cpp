// EXPECT: gatefold::config: a dense layer has no latent width; leave .latent out
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8, .ffn = 8, .latent = 4};
#else
constexpr gatefold::config c{.hidden = 8, .ffn = 8};
#endif
static_assert(gatefold::detail::checked<c>::value);
