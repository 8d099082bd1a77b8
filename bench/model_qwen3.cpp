#include "scaling.hpp"
#include "shapes.hpp"
#include "versus.hpp"

namespace bench {

void register_qwen3() {
    register_model<shapes::qwen3>("qwen3");
    register_scaling<shapes::qwen3>("qwen3");
    register_versus<shapes::qwen3>("qwen3");
}

}  // namespace bench
