#include "scaling.hpp"
#include "shapes.hpp"
#include "versus.hpp"

namespace bench {

void register_olmoe() {
    register_model<shapes::olmoe>("olmoe");
    register_scaling<shapes::olmoe>("olmoe");
    register_versus<shapes::olmoe>("olmoe");
}

}  // namespace bench
