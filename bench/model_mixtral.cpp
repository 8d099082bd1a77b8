#include "shapes.hpp"
#include "stages.hpp"

namespace bench {

void register_mixtral() { register_model<shapes::mixtral>("mixtral"); }

}  // namespace bench
