// What the translation units of the link tests share: views cross between them, and each calls the same templates.
#pragma once

#include <gatefold/gatefold.hpp>

namespace link_test {

namespace gf = gatefold;
using moe = gf::layer<gf::config{.hidden = 24, .ffn = 40, .experts = 4, .top_k = 2}, float>;
using input = gf::view<const float, gf::dyn, moe::hidden>;
using output = gf::view<float, gf::dyn, moe::hidden>;

// Each is defined in a translation unit with other instruction sets.
void forward_baseline(const gf::weights<moe, gf::cpu>& w, input x, output y);
void forward_avx2(const gf::weights<moe, gf::cpu>& w, input x, output y);
void forward_native(const gf::weights<moe, gf::cpu>& w, input x, output y);
void forward_in_cu(const gf::weights<moe, gf::cpu>& w, input x, output y);

}  // namespace link_test
