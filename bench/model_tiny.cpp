#include "scaling.hpp"
#include "shapes.hpp"
#include "versus.hpp"

namespace bench {

void register_tiny() {
    register_model<shapes::tiny>("tiny");
    register_scaling<shapes::tiny>("tiny");
    register_versus<shapes::tiny>("tiny");
}

}  // namespace bench
