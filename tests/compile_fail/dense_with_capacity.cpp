// EXPECT: gatefold::config: one expert takes every row; leave .capacity out or set .experts to two or more
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{
    .hidden = 8, .ffn = 8, .capacity = {.rule = gatefold::capacity_rule::mesh, .factor = 1.25f}};
#else
constexpr gatefold::config c{.hidden = 8, .ffn = 8};
#endif
static_assert(gatefold::detail::checked<c>::value);
