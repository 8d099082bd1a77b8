#include "scaling.hpp"
#include "shapes.hpp"
#include "versus.hpp"

namespace bench {

void register_mixtral() {
    register_model<shapes::mixtral>("mixtral");
    register_scaling<shapes::mixtral>("mixtral");
    register_versus<shapes::mixtral>("mixtral");
}

}  // namespace bench
