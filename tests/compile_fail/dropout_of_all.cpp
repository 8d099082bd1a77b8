// EXPECT: gatefold::config: dropout takes a probability; set .router.noise below 1
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.noise = 1, .noise_on = gatefold::input_noise::dropout}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.noise = 0.1f, .noise_on = gatefold::input_noise::dropout}};
#endif
static_assert(gatefold::detail::checked<c>::value);
