// What every instruction set of the program has in common: a layer behind an interface, and one function per
// instruction set that makes it. No flag changes anything in here.
#pragma once

#include <memory>

#include <gatefold/gatefold.hpp>

namespace tiers {

namespace gf = gatefold;

using layer =
    gf::layer<gf::config{.hidden = 128, .ffn = 256, .experts = 8, .top_k = 2, .router = gf::routers::mixtral}, float>;
using weights = gf::weights<layer>;
using input = gf::view<const float, gf::dyn, layer::hidden>;
using output = gf::view<float, gf::dyn, layer::hidden>;

/// The layer with weights packed for one instruction set.
struct model {
    virtual ~model() = default;
    virtual const char* tier() const = 0;
    virtual void forward(input x, output y) = 0;
};

// Each stands in a file of its own that is compiled for that instruction set.
std::unique_ptr<model> make_baseline(const weights& w);
std::unique_ptr<model> make_avx2(const weights& w);
std::unique_ptr<model> make_avx512(const weights& w);
std::unique_ptr<model> make_avx512_bf16(const weights& w);
std::unique_ptr<model> make_amx(const weights& w);

}  // namespace tiers
