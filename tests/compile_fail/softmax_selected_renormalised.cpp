// EXPECT: gatefold::config: softmax over the selected already sums to 1; set .router.renorm to none
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{
    .hidden = 8,
    .ffn = 8,
    .experts = 4,
    .top_k = 2,
    .router = {.from = gatefold::score::softmax_selected, .renorm = gatefold::renormalise::sum}};
#else
constexpr gatefold::config c{
    .hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .router = {.from = gatefold::score::softmax_selected}};
#endif
static_assert(gatefold::detail::checked<c>::value);
