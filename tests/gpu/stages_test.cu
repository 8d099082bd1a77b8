// The stages one by one on CUDA, with the caller's memory between them: the bits of forward.
#include "device.hpp"

namespace gf = gatefold;
using namespace device;

namespace {

template <class L>
void compare(std::initializer_list<int> counts, bool accumulate = false) {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    constexpr int H = L::hidden;
    gf::context<gf::cpu> cpu(1);
    gf::context<gf::cuda> gpu;
    const auto host = make_weights<L>(cpu, 7);
    auto w = gf::make_weights<L>(gpu);
    gf::copy(gpu, w, host);
    const gf::options<L> o{.accumulate = accumulate};
    for (const int n : counts) {
        tokens<T, H> x(cpu, gpu, n), y(cpu, gpu, n), expected(cpu, gpu, n);
        x.fill(gpu, 9);
        y.fill(gpu, 13);
        expected.fill(gpu, 13);
        const gf::batch<L, gf::cuda> in{.x = x.on_device.view()};
        gf::forward(gpu, w, in, expected.on_device.view(), o);

        auto ids = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(gpu, n);
        auto weights = gf::make_tensor<A, gf::dyn, L::slots>(gpu, n);
        auto logits = gf::make_tensor<A, gf::dyn, L::choices>(gpu, n);
        auto z = gf::make_tensor<T, gf::dyn, L::width>(gpu, n * L::slots);
        const gf::routing_view<L, gf::cuda> routing{ids.view(), weights.view(), logits.view()};
        gf::plan<L, gf::cuda> memory(gpu, n);
        const gf::plan_view<gf::cuda> plan = memory.view(n);
        gf::route(gpu, w, in, routing, o);
        if constexpr (gf::drops(L::c)) {
            auto kept = gf::make_tensor<std::uint8_t, gf::dyn>(gpu, n * L::slots);
            gf::apply_capacity(gpu, in, routing, kept.view(), o);
            gf::make_plan<L>(gpu, ids.view(), plan, kept.view());
        } else {
            gf::make_plan<L>(gpu, ids.view(), plan);
        }
        gf::experts(gpu, w, in, plan, routing, z.view(), o);
        gf::combine(gpu, w, in, plan, routing, z.view(), y.on_device.view(), o);
        const auto got = fetch(gpu, y.on_device), wanted = fetch(gpu, expected.on_device);
        BOOST_TEST(differences(got.data(), wanted.data(), y.host.size()) == 0, n << " tokens");
    }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(stages)

BOOST_AUTO_TEST_CASE(one_by_one_give_the_bits_of_forward) {
    compare<gf::layer<gf::config{.hidden = 48, .ffn = 40, .experts = 6, .top_k = 2}, float>>({1, 33, 600});
    compare<gf::layer<gf::config{.hidden = 40,
                                 .ffn = 24,
                                 .experts = 8,
                                 .top_k = 2,
                                 .bias = true,
                                 .router = gf::routers::mixtral,
                                 .shared = {.ffn = 24, .gate = true, .bias = true}},
                      gf::bf16>>({1, 130}, true);
    compare<gf::layer<gf::config{.hidden = 24,
                                 .ffn = 16,
                                 .experts = 5,
                                 .top_k = 2,
                                 .router = gf::routers::mixtral,
                                 .capacity = {.rule = gf::capacity_rule::megatron, .factor = 0.75f}},
                      float>>({40});
    compare<gf::layer<
        gf::config{
            .hidden = 37, .ffn = 24, .experts = 5, .top_k = 2, .shared = {.ffn = 8}, .free = {.copy = 1, .zero = 1}},
        float>>({19});
    compare<gf::layer<gf::config{.hidden = 40, .ffn = 24, .experts = 5, .top_k = 2, .shared = {.ffn = 8}, .latent = 12},
                      float>>({50});
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
