// EXPECT: gatefold::config: noise is the deviation of normalised logits and the tolerance of sparse_mixer; set
// .router.noise above 0 for them
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{
    .hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .router = {.transform = gatefold::logit_transform::normalised}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.transform = gatefold::logit_transform::normalised, .noise = 1}};
#endif
static_assert(gatefold::detail::checked<c>::value);
