// EXPECT: gatefold::forward: a dense layer adds nothing up; call forward without unordered
// EXPECT: gatefold::forward: one expert per token leaves nothing to reorder; call forward without unordered
// EXPECT: gatefold::forward: free experts are computed by the combine, which unordered leaves out; call forward
// without it
// EXPECT: gatefold::forward: a latent width is left after the combine, which unordered leaves out; call forward
// without it
// EXPECT: gatefold::forward: the gate of a shared expert is applied by the combine, which unordered leaves out;
// call forward without it
#include <gatefold/cuda/unordered_rules.hpp>

namespace gf = gatefold;

template <gf::config C>
constexpr bool allowed = gf::detail::on_cuda::unordered_supported<gf::layer<C, float>>::value;

constexpr gf::config plain{.hidden = 8, .ffn = 8, .experts = 4, .top_k = 2, .shared = {.ffn = 8}};
static_assert(allowed<plain>);
#ifdef GATEFOLD_BAD
static_assert(allowed<gf::config{.hidden = 8, .ffn = 8}>);
static_assert(allowed<gf::config{.hidden = 8, .ffn = 8, .experts = 4}>);
static_assert(allowed<gf::with(plain, &gf::config::free, gf::free_experts{.copy = 1})>);
static_assert(allowed<gf::with(plain, &gf::config::latent, 4)>);
static_assert(allowed<gf::with(plain, &gf::config::shared, gf::shared_config{.ffn = 8, .gate = true})>);
#endif
