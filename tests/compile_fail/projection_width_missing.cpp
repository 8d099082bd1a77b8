// EXPECT: gatefold::config: projection_width belongs to two_layer and cosine; set it above 0 for them
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{
    .hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .router = {.logits = gatefold::projection::cosine}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.logits = gatefold::projection::cosine, .projection_width = 4}};
#endif
static_assert(gatefold::detail::checked<c>::value);
