// The shape given as GATEFOLD_BENCH_CONFIG.
#if defined(GATEFOLD_BENCH_CONFIG)
#include "stages.hpp"

namespace bench {

void register_custom() { register_model<config{GATEFOLD_BENCH_CONFIG}>("custom"); }

}  // namespace bench
#endif
