// Configurations are values: compared, changed and judged in constant expressions, template arguments by content.
#include <string_view>
#include <type_traits>

#include <gatefold/moe/layer.hpp>
#include <gatefold/moe/routers.hpp>

using namespace gatefold;

template <config C>
struct named {};
static_assert(
    std::is_same_v<named<config{.hidden = 8, .ffn = 16}>, named<config{.hidden = 8, .ffn = 16, .experts = 1}>>);
static_assert(!std::is_same_v<named<config{.hidden = 8, .ffn = 16}>, named<config{.hidden = 8, .ffn = 17}>>);

constexpr router_config kimi = with(routers::deepseek_v3, &router_config::groups, 1, &router_config::kept_groups, 1,
                                    &router_config::group_by, group_key::none, &router_config::scale, 2.827f);
static_assert(kimi.scale == 2.827f && kimi.groups == 1 && kimi.epsilon == routers::deepseek_v3.epsilon);
static_assert(kimi != routers::deepseek_v3);

constexpr config layer_of(router_config r, int experts, int top_k) {
    return {.hidden = 8, .ffn = 16, .experts = experts, .top_k = top_k, .router = r};
}
static_assert(!fault(layer_of(routers::mixtral, 8, 2)) && !fault(layer_of(routers::olmoe, 64, 8)));
static_assert(!fault(layer_of(routers::deepseek_v3, 256, 8)) && !fault(layer_of(kimi, 384, 8)));
static_assert(!fault(layer_of(routers::gpt_oss, 128, 4)) && !fault(layer_of(routers::switch_transformer, 8, 1)));

// What the compiler would say, said at run time.
static_assert(std::string_view(fault(layer_of({}, 4, 5))) ==
              "gatefold::config: top_k must lie between 1 and experts; lower .top_k or raise .experts");
static_assert(std::string_view(fault(config{.ffn = 16})) ==
              "gatefold::config: hidden must be at least 1; set .hidden to the width of a token");
