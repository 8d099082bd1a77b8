#include "cuda_register.cuh"

namespace bench {

void register_olmoe_on_device() { register_on_device<shapes::olmoe>("olmoe"); }

}  // namespace bench
