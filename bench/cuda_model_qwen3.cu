#include "cuda_register.cuh"

namespace bench {

void register_qwen3_on_device() { register_on_device<shapes::qwen3>("qwen3"); }

}  // namespace bench
