// EXPECT: gatefold::config: softmax over the selected gives no score to bias; choose another .router.from
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{
    .hidden = 8,
    .ffn = 8,
    .experts = 4,
    .top_k = 2,
    .router = {.from = gatefold::score::softmax_selected, .selection_bias = gatefold::key_bias::score}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.from = gatefold::score::softmax, .selection_bias = gatefold::key_bias::score}};
#endif
static_assert(gatefold::detail::checked<c>::value);
