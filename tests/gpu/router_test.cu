// Routing on CUDA against the CPU wing: logits, ids, weights and counts to the bit, for every kind of choice.
#include "device.hpp"

namespace gf = gatefold;
using namespace device;

namespace {

using gf::config;

/// `hostile` puts NaN, infinities and ties among the logits, by way of the tokens.
template <class L>
void compare(std::initializer_list<int> counts, bool hostile = false, bool training = false) {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    constexpr int H = L::hidden;
    gf::context<gf::cpu> cpu(1);
    gf::context<gf::cuda> gpu;
    const auto w = make_weights<L>(cpu, 3);
    auto dw = gf::make_weights<L>(gpu);
    gf::copy(gpu, dw, w);
    for (const int n : counts) {
        tokens<T, H> x(cpu, gpu, n);
        x.fill(gpu, 5);
        if (hostile) {
            for (int t = 0; t < n; ++t) {
                const float odd[] = {0, INFINITY, -INFINITY, NAN, 3e38f};
                if (t % 3 == 0) x.host(t, t % H) = stored<T>(static_cast<double>(odd[t / 3 % 5]));
                for (int h = 0; t % 7 == 1 && h < H; ++h) x.host(t, h) = T(0);  // all logits tie
            }
            gf::copy(gpu, x.on_device, x.host);
        }
        auto ids = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(cpu, n);
        auto weights = gf::make_tensor<A, gf::dyn, L::slots>(cpu, n);
        auto logits = gf::make_tensor<A, gf::dyn, L::choices>(cpu, n);
        auto d_ids = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(gpu, n);
        auto d_weights = gf::make_tensor<A, gf::dyn, L::slots>(gpu, n);
        auto d_logits = gf::make_tensor<A, gf::dyn, L::choices>(gpu, n);
        gf::options<L> o;
        o.training = training;
        o.seed = 11;
        cpu.clear_report();
        gpu.clear_report();
        gf::route(cpu, w, gf::batch<L>{.x = x.host.view()}, {ids.view(), weights.view(), logits.view()}, o);
        gf::route(gpu, dw, gf::batch<L, gf::cuda>{.x = x.on_device.view()},
                  {d_ids.view(), d_weights.view(), d_logits.view()}, o);
        const auto same = [&](const char* what, const auto& mine, const auto& theirs) {
            const int d = differences(fetch(gpu, mine).data(), theirs.data(), theirs.size());
            BOOST_TEST(d == 0, what << ": " << d << " of " << theirs.size() << " differ, " << n << " tokens");
        };
        if (!same_bits_as_cpu) continue;
        same("logits", d_logits, logits);
        same("ids", d_ids, ids);
        same("weights", d_weights, weights);
        BOOST_TEST((gpu.report() == cpu.report()));
    }
}

constexpr gf::router_config grouped{.select = gf::selection::top_k,
                                    .from = gf::score::sigmoid,
                                    .selection_bias = gf::key_bias::score,
                                    .groups = 4,
                                    .kept_groups = 2,
                                    .group_by = gf::group_key::top2_sum,
                                    .renorm = gf::renormalise::sum_plus,
                                    .epsilon = 1e-20f,
                                    .scale = 2.5f};

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(router)

BOOST_AUTO_TEST_CASE(softmax_of_all_and_of_the_chosen) {
    compare<gf::layer<config{.hidden = 33, .ffn = 8, .experts = 60, .top_k = 6}, float>>({1, 7, 150});
    compare<gf::layer<config{.hidden = 64,
                             .ffn = 8,
                             .experts = 8,
                             .top_k = 2,
                             .router = {.bias = true, .from = gf::score::softmax_selected}},
                      float>>({1, 40}, true);
}

BOOST_AUTO_TEST_CASE(sigmoid_with_bias_and_groups) {
    compare<gf::layer<config{.hidden = 24, .ffn = 8, .experts = 160, .top_k = 4, .router = grouped}, float>>({9, 131},
                                                                                                             true);
}

BOOST_AUTO_TEST_CASE(bf16_tokens_double_tokens_renormalised) {
    constexpr config c{.hidden = 40, .ffn = 8, .experts = 24, .top_k = 3, .router = {.renorm = gf::renormalise::sum}};
    compare<gf::layer<c, gf::bf16>>({1, 30});
    compare<gf::layer<c, double>>({30}, true);
}

BOOST_AUTO_TEST_CASE(choices_of_another_kind) {
    compare<gf::layer<config{.hidden = 16,
                             .ffn = 8,
                             .experts = 16,
                             .top_k = 2,
                             .router = {.select = gf::selection::sparse_mixer, .noise = 0.01f}},
                      float>>({20}, true);
    compare<gf::layer<config{.hidden = 16,
                             .ffn = 8,
                             .experts = 40,
                             .top_k = 40,
                             .router = {.select = gf::selection::positive, .from = gf::score::relu}},
                      float>>({20}, true);
    compare<gf::layer<config{.hidden = 16,
                             .ffn = 8,
                             .experts = 40,
                             .top_k = 5,
                             .router = {.select = gf::selection::top_p, .threshold = 0.3f}},
                      float>>({20}, true);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
