// EXPECT: gatefold::config: sparse_mixer and sampled bring their own noise; set .router.transform to
// logit_transform::none
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{
    .hidden = 8,
    .ffn = 8,
    .experts = 4,
    .top_k = 2,
    .router = {.transform = gatefold::logit_transform::gumbel, .select = gatefold::selection::sampled, .noise = 1}};
#else
constexpr gatefold::config c{
    .hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .router = {.select = gatefold::selection::sampled, .noise = 1}};
#endif
static_assert(gatefold::detail::checked<c>::value);
