// EXPECT: gatefold::config: capacity.minimum belongs to the megatron rule; leave it out else
#include <gatefold/config.hpp>

#ifdef GATEFOLD_BAD
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .capacity = {.rule = gatefold::capacity_rule::mesh, .factor = 1, .minimum = 4}};
#else
constexpr gatefold::config c{.hidden = 8,
                             .ffn = 8,
                             .experts = 4,
                             .top_k = 2,
                             .capacity = {.rule = gatefold::capacity_rule::megatron, .factor = 1, .minimum = 4}};
#endif
static_assert(gatefold::detail::checked<c>::value);
