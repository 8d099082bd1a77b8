// EXPECT: gatefold::config: without a projection there is nothing to choose by; set .router.select to selection::given
// or uniform
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{
    .hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .router = {.logits = gatefold::projection::none}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .router = {.logits = gatefold::projection::none, .select = gatefold::selection::given}};
#endif
static_assert(gatefold::detail::checked<c>::value);
