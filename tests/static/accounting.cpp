// What layers cost, as constants: identities that hold for every layer, and sizes that were published.
#include <gatefold/moe/layer.hpp>
#include <gatefold/moe/routers.hpp>

using namespace gatefold;

// A layer of E experts is E dense layers and a router.
using dense = layer<config{.hidden = 4096, .ffn = 14336}, bf16>;
using mixtral = layer<config{.hidden = 4096, .ffn = 14336, .experts = 8, .top_k = 2, .router = routers::mixtral}, bf16>;
static_assert(mixtral::parameters == 8 * dense::parameters + 4096 * 8);
static_assert(mixtral::active_parameters == 2 * dense::parameters + 4096 * 8);
static_assert(dense::parameters == 3ll * 4096 * 14336 && dense::active_parameters == dense::parameters);
static_assert(dense::is_dense && !mixtral::is_dense);
static_assert(dense::flops == 2 * dense::parameters);

// Mixtral 8x7B, 46.7 billion parameters and 12.9 active: 32 of these layers, attention
// (2 x 4096 x 4096 + 2 x 4096 x 1024 a layer), norms, and the two tables of 32000 tokens.
constexpr index_t mixtral_rest = 32 * (2ll * 4096 * 4096 + 2ll * 4096 * 1024 + 2 * 4096) + 4096 + 2ll * 32000 * 4096;
static_assert(32 * mixtral::parameters + mixtral_rest == 46702792704);
static_assert(32 * mixtral::active_parameters + mixtral_rest == 12879925248);

// DeepSeek-V3: 256 routed experts of width 2048, one shared; 58 such layers hold 656 of its 671 billion parameters.
constexpr config deepseek{
    .hidden = 7168, .ffn = 2048, .experts = 256, .top_k = 8, .router = routers::deepseek_v3, .shared = {.ffn = 2048}};
static_assert(fault(deepseek) == nullptr);
static_assert(parameters(deepseek) - active_parameters(deepseek) == 248 * expert_parameters(deepseek));
static_assert(expert_parameters(deepseek) == 3ll * 7168 * 2048);
static_assert(58 * parameters(deepseek) / 1000000000 == 656);

// Values of a configuration at run time give the same numbers as the type.
static_assert(parameters(mixtral::c) == mixtral::parameters);

// 64-bit where a product of extents passes 2^31.
static_assert(largest_index(mixtral::c, 1 << 20) > 0x7fffffff);
static_assert(most_tokens(mixtral::c) == 0x7fffffff / 2);
