// EXPECT: gatefold::config: capacity.alignment belongs to the deepspeed rule; leave it at 1 else
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .capacity = {.rule = gatefold::capacity_rule::mesh, .factor = 1, .alignment = 4}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .capacity = {.rule = gatefold::capacity_rule::deepspeed, .factor = 1, .alignment = 4}};
#endif
static_assert(gatefold::detail::checked<c>::value);
