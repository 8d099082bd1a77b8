#include "shapes.hpp"
#include "stages.hpp"

namespace bench {

void register_qwen3() { register_model<shapes::qwen3>("qwen3"); }

}  // namespace bench
