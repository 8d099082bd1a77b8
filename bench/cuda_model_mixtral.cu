#include "cuda_register.cuh"

namespace bench {

void register_mixtral_on_device() { register_on_device<shapes::mixtral>("mixtral"); }

}  // namespace bench
