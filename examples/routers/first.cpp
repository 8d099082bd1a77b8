// The first named routers, which want a capacity beside them in training; here they route without one.
#include "measure.hpp"

namespace routers_example {

namespace r = gf::routers;

void first_routers(table& t) {
    t.add<r::switch_transformer, 1>("switch_transformer");
    t.add<r::gshard, 2>("gshard");
    t.add<r::mesh_threshold, 2>("mesh_threshold");
    t.add<r::st_moe, 2>("st_moe");
    t.add<r::nllb, 2>("nllb");
    t.add<r::nllb_sampling, 2>("nllb_sampling");
    t.add<r::nllb_random, 2>("nllb_random");
    t.add<r::noisy_top_k, 4>("noisy_top_k");
    t.add<r::v_moe, 2>("v_moe");
}

}  // namespace routers_example
