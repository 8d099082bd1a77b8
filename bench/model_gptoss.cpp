#include "shapes.hpp"
#include "stages.hpp"

namespace bench {

void register_gptoss() { register_model<shapes::gptoss>("gptoss"); }

}  // namespace bench
