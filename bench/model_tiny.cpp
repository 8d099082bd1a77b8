#include "shapes.hpp"
#include "stages.hpp"

namespace bench {

void register_tiny() { register_model<shapes::tiny>("tiny"); }

}  // namespace bench
