// EXPECT: gatefold::cross_entropy: logits must be [T, V] and targets [T]
#include <gatefold/ops/cross_entropy.hpp>

namespace gf = gatefold;

void loss(gf::context<gf::cpu>& ctx, gf::view<float, 6, 100> logits,
          [[maybe_unused]] gf::view<const std::int32_t, 6> targets,
          [[maybe_unused]] gf::view<const std::int32_t, 100> wrong) {
#ifdef GATEFOLD_BAD
    gf::cross_entropy(ctx, logits, wrong);
#else
    gf::cross_entropy(ctx, logits, targets);
#endif
}
