// Learning rates: a linear warm-up, then half a cosine down to a floor.
#pragma once

#include <cmath>

#include <gatefold/core/error.hpp>
#include <gatefold/core/index.hpp>

namespace gatefold::inline v0 {

/// rate(s) climbs to `peak` at step warm_up - 1, and falls from there to floor · peak at step `steps`.
struct cosine_schedule {
    double peak = 1e-3;
    index_t warm_up = 0;  ///< steps with a rising rate; the first of them already has peak / warm_up
    index_t steps = 1;    ///< the length of the run
    double floor = 0.1;   ///< the last rate as a part of the peak

    /// The rate of step 0, 1, …; constant at the floor from `steps` on.
    GATEFOLD_INLINE double rate(index_t step) const {
        constexpr double pi = 0x1.921fb54442d18p1;
        if (step < warm_up) return peak * static_cast<double>(step + 1) / static_cast<double>(warm_up);
        if (step >= steps) return peak * floor;
        const double past = static_cast<double>(step - warm_up) / static_cast<double>(steps - warm_up);
        return peak * (floor + (1 - floor) * 0.5 * (1 + std::cos(pi * past)));
    }
};

}  // namespace gatefold::inline v0
