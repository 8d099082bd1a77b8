#include "cuda_register.cuh"

namespace bench {

void register_tiny_on_device() { register_on_device<shapes::tiny>("tiny"); }

}  // namespace bench
