// EXPECT: gatefold::config: the positive choice and the relu score belong together; set both .router.select and
// .router.from or neither
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{
    .hidden = 8, .ffn = 8, .experts = 4, .top_k = 1, .router = {.select = gatefold::selection::positive}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 1,
                             .router = {.select = gatefold::selection::positive, .from = gatefold::score::relu}};
#endif
static_assert(gatefold::detail::checked<c>::value);
