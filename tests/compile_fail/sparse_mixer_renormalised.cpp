// EXPECT: gatefold::config: sparse_mixer has weights of its own; leave .router.from, .renorm, .scores_in and
// .expert_scale out
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{
    .hidden = 8,
    .ffn = 8,
    .experts = 4,
    .top_k = 2,
    .router = {.select = gatefold::selection::sparse_mixer, .renorm = gatefold::renormalise::sum, .noise = 0.01f}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.select = gatefold::selection::sparse_mixer, .noise = 0.01f}};
#endif
static_assert(gatefold::detail::checked<c>::value);
