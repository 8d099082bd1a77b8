// Blocks of published models on CUDA, in float: outputs, experts and weights of the reference implementation.
#include <tests/golden/block_comparison.hpp>

#include "device.hpp"

namespace gf = gatefold;

namespace {

constexpr bool same_text(const char* a, const char* b) {
    while (*a != '\0' && *a == *b) ++a, ++b;
    return *a == *b;
}
constexpr block_cases::model_case find(const char* folder) {
    for (const auto& one : block_cases::softmax_models)
        if (same_text(one.folder, folder)) return one;
    for (const auto& one : block_cases::unscaled_models)
        if (same_text(one.folder, folder)) return one;
    for (const auto& one : block_cases::sigmoid_models)
        if (same_text(one.folder, folder)) return one;
    return {};
}

template <gf::config C>
void check(const block_cases::model_case& one) {
    using namespace block_comparison;
    using L = gf::layer<C, float>;
    const std::string folder = golden_path("models/" + std::string(one.folder));
    if (folder.empty()) return;
    gf::context<gf::cpu> cpu(1);
    gf::context<gf::cuda> gpu;
    const auto w = gf::load_block<L>(cpu, folder, one.prefix);
    auto dw = gf::make_weights<L>(gpu);
    gf::copy(gpu, dw, w);

    const auto golden = gf::safetensors_file::open(folder + "/golden.safetensors");
    const auto x = read<float>(golden, "block.input"), expected = read<float>(golden, "block.output");
    const gf::index_t tokens = static_cast<gf::index_t>(x.size()) / L::hidden;
    auto dx = gf::make_tensor<float, gf::dyn, L::hidden>(gpu, tokens);
    auto dy = gf::make_tensor<float, gf::dyn, L::hidden>(gpu, tokens);
    gf::copy(gpu, dx.view(), gf::view<const float, gf::dyn, L::hidden>(x.data(), {tokens, L::hidden}));
    gf::tape<L, gf::cuda> tape(gpu, tokens);
    gf::forward(gpu, dw, gf::batch<L, gf::cuda>{.x = dx.view()}, dy.view(), tape);
    check_close("output", device::fetch(gpu, dy).data(), expected, 5e-6);

    const auto ids = read<std::int64_t>(golden, "router.ids");
    const auto weights = read<float>(golden, "router.weights");
    const auto my_ids = device::fetch(gpu, tape.routing().ids);
    const auto my_weights = device::fetch(gpu, tape.routing().weights);
    const auto n = static_cast<std::size_t>(tokens);
    const auto matrix = [&](const auto& i, const auto* w_of) {
        return as_matrix(i.data(), w_of, n, i.size() / n, L::choices);
    };
    check_close("weights", matrix(my_ids, my_weights.data()).data(), matrix(ids, weights.data()), 5e-6);
    check_close("ids", matrix(my_ids, static_cast<const float*>(nullptr)).data(),
                matrix(ids, static_cast<const float*>(nullptr)), 0);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(golden)

BOOST_AUTO_TEST_CASE(mixtral) { check<find("mixtral").c>(find("mixtral")); }
BOOST_AUTO_TEST_CASE(qwen3_next) { check<find("qwen3_next").c>(find("qwen3_next")); }
BOOST_AUTO_TEST_CASE(gpt_oss) { check<find("gpt_oss").c>(find("gpt_oss")); }
BOOST_AUTO_TEST_CASE(deepseek_v3) { check<find("deepseek_v3").c>(find("deepseek_v3")); }

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
