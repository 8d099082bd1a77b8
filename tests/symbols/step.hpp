// What the symbol tests instantiate: forward and backward of a layer of floats.
#pragma once

#include <gatefold/gatefold.hpp>

namespace gf = gatefold;

/// One step of training; a test names `template struct training_step<config>` and looks at what that brings along.
template <gf::config C>
struct training_step {
    using L = gf::layer<C, float>;
    static void run(gf::context<gf::cpu>& ctx, const gf::weights<L>& w, const gf::batch<L>& in,
                    gf::view<const float, gf::dyn, C.hidden> dy, gf::view<float, gf::dyn, C.hidden> y,
                    gf::view<float, gf::dyn, C.hidden> dx, gf::tape<L>& tape, gf::gradients<L>& g) {
        gf::forward(ctx, w, in, y, tape);
        gf::backward(ctx, w, in, tape, dy, dx, g);
    }
};
