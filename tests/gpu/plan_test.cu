// Sort by expert on CUDA: the plan of the CPU wing, bit for bit, from one block, from counts, and beyond CUB's ranks.
#include "device.hpp"

namespace gf = gatefold;
using namespace device;

namespace {

/// Ids of T tokens: uniform, all on one expert, skewed, some slots empty.
std::int32_t id_of(int kind, numbers& next, int experts) {
    const double u = (next() + 1) / 2;
    if (kind == 1) return experts - 1;
    if (kind == 2) return static_cast<std::int32_t>(u * u * u * experts) % experts;
    if (kind == 3 && u < 0.3) return -1;
    return static_cast<std::int32_t>(u * experts) % experts;
}

template <int E>
void compare(std::initializer_list<int> counts) {
    using L = gf::layer<gf::config{.hidden = 4, .ffn = 4, .experts = E, .top_k = 3}, float>;
    gf::context<gf::cpu> cpu(1);
    gf::context<gf::cuda> gpu;
    for (const int n : counts)
        for (int kind = 0; kind < 4; ++kind) {
            auto ids = gf::make_tensor<std::int32_t, gf::dyn, 3>(cpu, n);
            auto d_ids = gf::make_tensor<std::int32_t, gf::dyn, 3>(gpu, n);
            numbers next(static_cast<std::uint64_t>(n * 4 + kind));
            for (gf::index_t i = 0; i < ids.size(); ++i) ids.data()[i] = id_of(kind, next, E);
            gf::copy(gpu, d_ids, ids);
            gf::plan<L> plan(cpu, n);
            gf::plan<L, gf::cuda> d_plan(gpu, n);
            const auto p = plan.view(n);
            const auto d = d_plan.view(n);
            gf::make_plan<L>(cpu, ids.view(), p);
            gf::make_plan<L>(gpu, d_ids.view(), d);
            BOOST_TEST(differences(fetch(gpu, d.offsets).data(), p.offsets.data(), E + 1) == 0);
            BOOST_TEST(differences(fetch(gpu, d.place).data(), p.place.data(), n * 3) == 0);
            // Rows behind the last expert are nobody's.
            const gf::index_t rows = p.offsets[E];
            if (rows > 0) {
                const auto filled = fetch(gpu, gf::device_view<const std::int32_t, gf::dyn>(d.rows.data(), {rows}));
                BOOST_TEST(differences(filled.data(), p.rows.data(), rows) == 0);
            }
        }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(plan)

BOOST_AUTO_TEST_CASE(one_block_and_many) {
    compare<4>({1, 2, 341, 342, 3000});
    compare<256>({7, 1000});
}

BOOST_AUTO_TEST_CASE(more_experts_than_ranks_reach) { compare<1100>({5, 600}); }

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
