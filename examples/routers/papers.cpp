// Named routers of papers: other projections, other numbers of experts, tables, assignment over the batch.
#include "measure.hpp"

namespace routers_example {

namespace r = gf::routers;

void routers_of_papers(table& t) {
    t.add<r::phi_moe, 2>("phi_moe");
    t.add<r::skywork, 2>("skywork");
    t.add<r::x_moe(8), 2>("x_moe");
    t.add<r::top_p, 8>("top_p");
    t.add<r::remoe, 2>("remoe");
    t.add<r::every, 1>("every");
    t.add<r::hash, 1>("hash");
    t.add<r::uniform, 1>("uniform");
    t.add<r::sampled, 2>("sampled");
    t.add<r::expert_choice, 2>("expert_choice");
    t.add<r::mesh_expert_choice, 2>("mesh_expert_choice");
    t.add<r::base, 1>("base");
    t.add<r::sinkhorn, 1>("sinkhorn");
    t.add<r::sinkhorn_top_k, 2>("sinkhorn_top_k");
}

}  // namespace routers_example
