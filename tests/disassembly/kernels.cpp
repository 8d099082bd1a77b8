// The forward pass of one float and one bf16 layer: what tools/disassembly.py looks into.
#include <gatefold/gatefold.hpp>

namespace gf = gatefold;

template <class T>
using moe =
    gf::layer<gf::config{.hidden = 512, .ffn = 1024, .experts = 8, .top_k = 2, .router = gf::routers::mixtral}, T>;

template void gf::forward(gf::context<gf::cpu>&, const gf::packed<moe<float>>&, const gf::batch<moe<float>>&,
                          gf::view<float, gf::dyn, 512>, const gf::options<moe<float>>&);
template void gf::forward(gf::context<gf::cpu>&, const gf::packed<moe<gf::bf16>>&, const gf::batch<moe<gf::bf16>>&,
                          gf::view<gf::bf16, gf::dyn, 512>, const gf::options<moe<gf::bf16>>&);
