// The plan made by Thrust on the device system that the build chose, OpenMP where there is one.
#include <gatefold/core/context.hpp>
#include <gatefold/interop/thrust.hpp>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace bench {

using gatefold::dyn;
using gatefold::view;

void thrust_plan(int threads, view<const std::int32_t, dyn> ids, int choices,
                 const gatefold::plan_view<gatefold::cpu>& out, view<std::int32_t, dyn> keys) {
#if defined(_OPENMP)
    omp_set_num_threads(threads);
#else
    static_cast<void>(threads);
#endif
    gatefold::interop::make_plan(thrust::device, ids, choices, out, keys);
}

}  // namespace bench
