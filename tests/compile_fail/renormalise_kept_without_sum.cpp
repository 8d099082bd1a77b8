// EXPECT: gatefold::config: renormalise_kept needs weights that are divided by their sum and no scale per expert; set
// .router.renorm
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{
    .hidden = 8,
    .ffn = 8,
    .experts = 4,
    .top_k = 2,
    .capacity = {.rule = gatefold::capacity_rule::mesh, .factor = 1, .renormalise_kept = true}};
#else
constexpr gatefold::config c{
    .hidden = 8,
    .ffn = 8,
    .experts = 4,
    .top_k = 2,
    .router = {.renorm = gatefold::renormalise::sum},
    .capacity = {.rule = gatefold::capacity_rule::mesh, .factor = 1, .renormalise_kept = true}};
#endif
static_assert(gatefold::detail::checked<c>::value);
