#include "cuda_register.cuh"

namespace bench {

void register_gptoss_on_device() { register_on_device<shapes::gptoss>("gptoss"); }

}  // namespace bench
