// The model for the instruction set of the file that includes this. The class has no name outside that file, and the
// functions of gatefold that it calls carry the instruction set in their names: the linker cannot take one file's code
// for another's.
#pragma once

#include "model.hpp"

namespace tiers {
namespace {

class here final : public model {
public:
    explicit here(const weights& w) : packed_(gf::pack(ctx_, w)) {}
    const char* tier() const override { return GATEFOLD_TEXT(GATEFOLD_TIER); }
    void forward(input x, output y) override { gf::forward(ctx_, packed_, x, y); }

private:
    gf::context<gf::cpu> ctx_;
    gf::packed<layer> packed_;
};

}  // namespace
}  // namespace tiers
