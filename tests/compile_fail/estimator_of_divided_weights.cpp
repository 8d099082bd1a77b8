// EXPECT: gatefold::config: an estimator is about the plain scores of a dropless top-k choice; set
// .router.learns_from to estimator::chosen
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{
    .hidden = 8,
    .ffn = 8,
    .experts = 4,
    .top_k = 2,
    .router = {.renorm = gatefold::renormalise::sum, .learns_from = gatefold::estimator::all_experts}};
#else
constexpr gatefold::config c{
    .hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .router = {.learns_from = gatefold::estimator::all_experts}};
#endif
static_assert(gatefold::detail::checked<c>::value);
