// EXPECT: gatefold::config: a blend is of one expert and its token; set .top_k to 1 and leave .latent, .free,
// .scaled and .input_times_k out
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.from = gatefold::score::sigmoid, .acts_on = gatefold::weight_at::blend}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 1,
                             .router = {.from = gatefold::score::sigmoid, .acts_on = gatefold::weight_at::blend}};
#endif
static_assert(gatefold::detail::checked<c>::value);
