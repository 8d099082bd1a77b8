// A layer packed expert by expert, its shared expert included, is the layer packed at once.
#include "device.hpp"

namespace gf = gatefold;
using namespace device;

namespace {

using layer = gf::layer<
    gf::config{
        .hidden = 48, .ffn = 32, .experts = 3, .top_k = 2, .router = gf::routers::mixtral, .shared = {.ffn = 40}},
    gf::bf16>;
using matrix = gf::device_view<const gf::bf16, gf::dyn, gf::dyn>;

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(pack)

BOOST_AUTO_TEST_CASE(one_expert_after_the_other) {
    gf::context<gf::cpu> cpu(1);
    gf::context<gf::cuda> gpu;
    auto w = gf::make_weights<layer>(gpu);
    gf::copy(gpu, w, make_weights<layer>(cpu, 5));
    const auto whole = gf::pack(gpu, w);
    auto parts = gf::make_packed<layer>(gpu);
    for (int e = 0; e < layer::experts; ++e) gf::pack_expert(gpu, parts, e, w.expert(e).gate_up, w.expert(e).down);
    gf::pack_shared_expert(gpu, parts, matrix(w.shared_gate_up.view()), matrix(w.shared_down.view()));
    const auto expected = fetch(gpu, whole.matrices), got = fetch(gpu, parts.matrices);
    BOOST_TEST(differences(got.data(), expected.data(), expected.size()) == 0);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
