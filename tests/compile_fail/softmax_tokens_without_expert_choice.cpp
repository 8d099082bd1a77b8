// EXPECT: gatefold::config: softmax over tokens is a score of expert choice alone; set .router.select to
// selection::expert_choice and leave .renorm, .scores_in, .expert_scale and .free.zero out
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{
    .hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .router = {.from = gatefold::score::softmax_tokens}};
#else
constexpr gatefold::config c{
    .hidden = 8,
    .ffn = 8,
    .experts = 4,
    .top_k = 2,
    .router = {
        .select = gatefold::selection::expert_choice, .from = gatefold::score::softmax_tokens, .allow_future = true}};
#endif
static_assert(gatefold::detail::checked<c>::value);
