// One block of gradients/blocks, in double and in float: output, input gradient and every gradient of a parameter.
// block_generator writes a call of check_block for every file.
#pragma once

#include "block_comparison.hpp"

namespace block_gradients {

namespace gf = gatefold;
using block_comparison::as_matrix;
using block_comparison::block_input;
using block_comparison::block_result;
using block_comparison::check_close;
using block_comparison::read;

/// Both passes. The gradients of the reference are read into the layer's own layout: the file has them under the names
/// of the parameters.
template <gf::config C, class T>
block_result<T> run_both(const block_input<T>& input) {
    using L = gf::layer<C, T>;
    gf::context<gf::cpu> ctx(2);
    const auto w = gf::load_block<L>(ctx, *input.model, input.prefix);
    const auto tokens = static_cast<gf::index_t>(input.x.size()) / L::hidden;
    block_result<T> result;
    result.y.resize(input.x.size());
    result.dx.resize(input.x.size());
    const gf::batch<L> in = block_comparison::batch_of<L>(input);
    gf::tape<L> tape(ctx, tokens);
    auto g = gf::make_gradients<L>(ctx);
    gf::forward(ctx, w, in, {result.y.data(), {tokens, L::hidden}}, tape);
    block_comparison::keep_routing(tape, static_cast<std::size_t>(tokens), result);
    std::copy(input.weights.begin(), input.weights.end(), tape.routing().weights.data());
    gf::backward(ctx, w, in, tape, {input.dy.data(), {tokens, L::hidden}}, {result.dx.data(), {tokens, L::hidden}}, g);
    result.d_logits.assign(tape.logit_gradients().data(), tape.logit_gradients().data() + tokens * L::choices);
    result.gradients = block_comparison::values_of(g);
    for (int e = 0; e < L::experts; ++e)
        if (tape.plan().offsets[e] == tape.plan().offsets[e + 1])
            result.of_idle_experts.insert(result.of_idle_experts.end(), g.expert(e).down.data(),
                                          g.expert(e).down.data() + g.expert(e).down.size());
    auto expected = gf::make_weights<L>(ctx);
    gf::detail::block_source source{*input.model, "grad.", {}, {}};
    gf::detail::read_block(source, expected, false);
    gf::detail::refuse_block(source);
    gf::for_each_parameter(
        [&](const char* name, const auto&, const auto& slot) {
            result.expected_gradients.push_back({name, {slot.data(), slot.data() + slot.size()}});
        },
        g, expected);
    return result;
}

template <class T>
void check_block_with(const std::string& name, const std::string& path, const gf::config& c,
                      block_result<T> (*run)(const block_input<T>&)) {
    constexpr double tolerance = sizeof(T) == 8 ? 1e-11 : 1e-5;
    const std::string what = name + (sizeof(T) == 8 ? " double " : " float ");
    const auto file = gf::safetensors_file::open(path);
    const auto model = gf::checkpoint::open(path);
    block_input<T> input;
    input.model = &model;
    input.prefix = "param";
    input.x = read<T>(file, "x");
    input.dy = read<T>(file, "dy");
    input.sequence_starts = {0};
    const auto ids = read<std::int64_t>(file, "router.ids");
    const auto weights = read<T>(file, "router.weights");
    // The draws of a sampling reference cannot be repeated: its choice is given, and its factors enter the weights
    // between the passes, which leaves the output as the only thing that is not compared.
    const bool sampled = file.find("router.c") != nullptr;
    if (sampled) {
        input.chosen.assign(ids.begin(), ids.end());
        input.weights = weights;
    }
    const block_result<T> result = run(input);
    const std::size_t tokens = input.x.size() / static_cast<std::size_t>(c.hidden);
    const int n = gf::choices(c);
    check_close(what + "logits", result.logits, read<T>(file, "router.logits"), tolerance);
    const auto own = as_matrix(result.ids, tokens, n, result.weights);
    if (sampled) {
        check_close(what + "probabilities", own, as_matrix(ids, tokens, n, read<T>(file, "router.q")), tolerance);
    } else {
        check_close(what + "weights", own, as_matrix(ids, tokens, n, weights), tolerance);
        check_close(what + "ids", as_matrix(result.kept, tokens, n), as_matrix(ids, tokens, n), 0);
        check_close(what + "output", result.y, read<T>(file, "y"), tolerance);
    }
    check_close(what + "dx", result.dx, read<T>(file, "dx"), tolerance);
    check_close(what + "d logits", result.d_logits, read<T>(file, "grad.router.logits"), tolerance);
    BOOST_TEST(!result.gradients.empty());
    BOOST_REQUIRE_EQUAL(result.gradients.size(), result.expected_gradients.size());
    for (std::size_t i = 0; i < result.gradients.size(); ++i)
        check_close(what + "d " + result.gradients[i].name, result.gradients[i].values,
                    result.expected_gradients[i].values, tolerance);
    // Experts without a token get zeros to the bit.
    for (const T zero : result.of_idle_experts) BOOST_TEST(zero == 0);
}

/// Compares gradients/blocks/NAME.safetensors, in both scalar types.
template <gf::config C>
void check_block(const std::string& name) {
    const std::string path = block_comparison::golden_path("gradients/blocks/" + name + ".safetensors");
    if (path.empty()) return;
    BOOST_TEST((block_folders::gradient_case(block_comparison::golden_path(""), name).c == C),
               "the literal is another value than the metadata of " << path << " says");
    check_block_with<double>(name, path, C, run_both<C, double>);
    check_block_with<float>(name, path, C, run_both<C, float>);
}

}  // namespace block_gradients
