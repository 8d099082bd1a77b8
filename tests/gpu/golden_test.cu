// Blocks of published models on CUDA: outputs, experts and weights of the reference implementation, in float and, of
// one whose parameters are bf16, in bf16.
#include <vector>

#include <tests/golden/block_comparison.hpp>

#include "device.hpp"

namespace gf = gatefold;

namespace {

/// `tolerance`: of the largest output and the largest weight.
template <gf::config C, class T = float>
void check(const std::string& name, double tolerance = 5e-6) {
    using namespace block_comparison;
    using L = gf::layer<C, T>;
    const std::string folder = golden_path("models/" + name);
    if (folder.empty()) return;
    gf::context<gf::cpu> cpu(1);
    gf::context<gf::cuda> gpu;
    const auto golden = gf::safetensors_file::open(folder + "/golden.safetensors");
    const auto model = gf::checkpoint::open(folder);
    const auto w = gf::load_block<L>(cpu, model, prefix_of(model, *golden.find_metadata("block")));
    auto dw = gf::make_weights<L>(gpu);
    gf::copy(gpu, dw, w);

    const auto input = read<float>(golden, "block.input"), expected = read<float>(golden, "block.output");
    const gf::index_t tokens = static_cast<gf::index_t>(input.size()) / L::hidden;
    std::vector<T> x;
    for (const float v : input) x.push_back(device::stored<T>(static_cast<double>(v)));
    auto dx = gf::make_tensor<T, gf::dyn, L::hidden>(gpu, tokens);
    auto dy = gf::make_tensor<T, gf::dyn, L::hidden>(gpu, tokens);
    gf::copy(gpu, dx.view(), gf::view<const T, gf::dyn, L::hidden>(x.data(), {tokens, L::hidden}));
    gf::tape<L, gf::cuda> tape(gpu, tokens);
    gf::forward(gpu, dw, gf::batch<L, gf::cuda>{.x = dx.view()}, dy.view(), tape);
    const std::vector<T> y = device::fetch(gpu, dy);
    check_close("output", std::vector<float>(y.begin(), y.end()), expected, tolerance);

    const auto ids = read<std::int64_t>(golden, "router.ids");
    const auto weights = read<float>(golden, "router.weights");
    const auto my_ids = device::fetch(gpu, tape.routing().ids);
    const auto my_weights = device::fetch(gpu, tape.routing().weights);
    const auto n = static_cast<std::size_t>(tokens);
    check_close("weights", as_matrix(my_ids, n, L::choices, my_weights), as_matrix(ids, n, L::choices, weights),
                tolerance);
    check_close("ids", as_matrix(my_ids, n, L::choices), as_matrix(ids, n, L::choices), 0);
}

using R = gf::router_config;
constexpr gf::config mixtral{.hidden = 72, .ffn = 44, .experts = 5, .top_k = 2, .router = gf::routers::mixtral};
constexpr gf::config qwen3_next{.hidden = 64,
                                .ffn = 12,
                                .experts = 14,
                                .top_k = 4,
                                .router = gf::routers::qwen3_next,
                                .shared = {.ffn = 20, .gate = true}};
constexpr gf::config gpt_oss{.hidden = 64,
                             .ffn = 40,
                             .experts = 8,
                             .top_k = 3,
                             .act = gf::activation::clamped_swiglu,
                             .limit = 7,
                             .bias = true,
                             .router = gf::routers::gpt_oss};
constexpr gf::config deepseek_v3{.hidden = 64,
                                 .ffn = 20,
                                 .experts = 16,
                                 .top_k = 4,
                                 .router = gf::with(gf::routers::deepseek_v3, &R::groups, 4, &R::kept_groups, 2),
                                 .shared = {.ffn = 20}};
constexpr gf::config qwen3_moe_e160{.hidden = 40, .ffn = 8, .experts = 160, .top_k = 8, .router = gf::routers::qwen3};
constexpr gf::config llama4{
    .hidden = 64, .ffn = 28, .experts = 6, .router = gf::routers::llama4, .shared = {.ffn = 28}};
constexpr gf::config longcat_flash{
    .hidden = 64, .ffn = 14, .experts = 8, .top_k = 4, .router = gf::routers::longcat, .free = {.copy = 4}};
constexpr gf::config mixtral_bf16{.hidden = 72, .ffn = 30, .experts = 6, .top_k = 2, .router = gf::routers::mixtral};

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(golden)

BOOST_AUTO_TEST_CASE(of_mixtral) { check<mixtral>("mixtral"); }
BOOST_AUTO_TEST_CASE(of_qwen3_next) { check<qwen3_next>("qwen3_next"); }
BOOST_AUTO_TEST_CASE(of_gpt_oss) { check<gpt_oss>("gpt_oss"); }
BOOST_AUTO_TEST_CASE(of_deepseek_v3) { check<deepseek_v3>("deepseek_v3"); }
BOOST_AUTO_TEST_CASE(of_qwen3_moe_with_160_experts) { check<qwen3_moe_e160>("qwen3_moe_e160"); }
BOOST_AUTO_TEST_CASE(of_llama4) { check<llama4>("llama4"); }
BOOST_AUTO_TEST_CASE(of_longcat_flash) { check<longcat_flash>("longcat_flash"); }
BOOST_AUTO_TEST_CASE(of_mixtral_in_bf16) { check<mixtral_bf16, gf::bf16>("mixtral_bf16", 2e-2); }

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
