#include "shapes.hpp"
#include "stages.hpp"

namespace bench {

void register_olmoe() { register_model<shapes::olmoe>("olmoe"); }

}  // namespace bench
