// What a program that calls one layer on CUDA compiles: the unit of the budget for compile time and object size.
#include <gatefold/gatefold.hpp>

namespace gf = gatefold;

using moe =
    gf::layer<gf::config{
                  .hidden = 2048, .ffn = 768, .experts = 128, .top_k = 8, .router = {.renorm = gf::renormalise::sum}},
              gf::bf16>;

void call(gf::context<gf::cuda>& gpu, const gf::packed<moe, gf::cuda>& w,
          gf::device_view<const gf::bf16, gf::dyn, moe::hidden> x, gf::device_view<gf::bf16, gf::dyn, moe::hidden> y) {
    gf::forward(gpu, w, x, y);
}
