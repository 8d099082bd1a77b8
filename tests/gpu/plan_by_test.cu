// Plans by the sorts of CUB and Thrust: the plan of the CPU wing.
#include <gatefold/cuda/plan_by.cuh>

#include "device.hpp"

using namespace device;

namespace {

template <int E, class Method>
void compare(Method method, std::initializer_list<int> counts) {
    using L = gf::layer<gf::config{.hidden = 4, .ffn = 4, .experts = E, .top_k = 2}, float>;
    gf::context<gf::cpu> cpu(1);
    gf::context<gf::cuda> gpu;
    for (const int n : counts)
        for (int kind = 0; kind < 3; ++kind) {
            auto ids = gf::make_tensor<std::int32_t, gf::dyn, 2>(cpu, n);
            auto kept = gf::make_tensor<std::uint8_t, gf::dyn>(cpu, n * 2);
            auto d_ids = gf::make_tensor<std::int32_t, gf::dyn, 2>(gpu, n);
            auto d_kept = gf::make_tensor<std::uint8_t, gf::dyn>(gpu, n * 2);
            numbers next(static_cast<std::uint64_t>(n * 3 + kind));
            for (gf::index_t i = 0; i < ids.size(); ++i) {
                const double u = (next() + 1) / 2;
                ids.data()[i] = kind == 1 ? E / 2 : u < 0.2 ? -1 : static_cast<std::int32_t>(u * E) % E;
                kept.data()[i] = u > 0.9 ? 0 : 1;
            }
            gf::copy(gpu, d_ids, ids);
            gf::copy(gpu, d_kept, kept);
            gf::plan<L> plan(cpu, n);
            gf::plan<L, gf::cuda> d_plan(gpu, n);
            const auto p = plan.view(n);
            const auto d = d_plan.view(n);
            gf::view<const std::uint8_t, gf::dyn> some = kept.view();
            gf::device_view<const std::uint8_t, gf::dyn> d_some = d_kept.view();
            if (kind < 2) some = {}, d_some = {};
            gf::make_plan<L>(cpu, ids.view(), p, some);
            gf::make_plan<L>(gpu, method, d_ids.view(), d, d_some);
            BOOST_TEST(differences(fetch(gpu, d.offsets).data(), p.offsets.data(), E + 1) == 0);
            if (n == 0) continue;
            BOOST_TEST(differences(fetch(gpu, d.place).data(), p.place.data(), n * 2) == 0);
            const gf::index_t rows = p.offsets[E];
            if (rows == 0) continue;
            const auto filled = fetch(gpu, gf::device_view<const std::int32_t, gf::dyn>(d.rows.data(), {rows}));
            BOOST_TEST(differences(filled.data(), p.rows.data(), rows) == 0);
        }
}

template <class Method>
void compare_all(Method method) {
    compare<5>(method, {0, 1, 2, 63, 700, 3000});
    compare<256>(method, {7, 1000});
    compare<1100>(method, {5, 600});
}

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(plan_by)

BOOST_AUTO_TEST_CASE(radix_sort) { compare_all(gf::plan_by::radix_sort); }
BOOST_AUTO_TEST_CASE(thrust_sort) { compare_all(gf::plan_by::thrust_sort); }

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
