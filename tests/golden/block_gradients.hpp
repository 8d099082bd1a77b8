// One block of gradients/blocks in one scalar type: output, input gradient and every gradient of a parameter.
#pragma once

#include "block_comparison.hpp"

namespace block_gradients {

namespace gf = gatefold;
using block_comparison::as_matrix;
using block_comparison::check_close;
using block_comparison::read;

/// The gradients of the reference in the layer's own layout: the file has them under the names of the parameters.
template <class L>
gf::weights<L> expected_gradients(gf::context<gf::cpu>& ctx, const gf::checkpoint& file) {
    auto g = gf::make_weights<L>(ctx);
    gf::detail::block_source source{file, "grad.", {}, {}};
    gf::detail::read_block(source, g, false);
    gf::detail::refuse_block(source);
    return g;
}

template <gf::config C, class T>
void check_block(const char* name, const std::string& path) {
    using L = gf::layer<C, T>;
    constexpr double tolerance = sizeof(T) == 8 ? 1e-11 : 1e-5;
    const std::string what = std::string(name) + (sizeof(T) == 8 ? " double " : " float ");
    const auto file = gf::safetensors_file::open(path);
    const auto model = gf::checkpoint::open(path);
    gf::context<gf::cpu> ctx(2);
    const auto w = gf::load_block<L>(ctx, model, "param");
    const auto x = read<T>(file, "x"), dy = read<T>(file, "dy");
    const auto tokens = static_cast<gf::index_t>(x.size()) / L::hidden;
    const auto n = static_cast<std::size_t>(tokens);
    const auto ids = read<std::int64_t>(file, "router.ids");
    const auto weights = read<T>(file, "router.weights");
    std::vector<T> y(x.size()), dx(x.size());
    std::vector<std::int32_t> chosen;
    gf::batch<L> in;
    in.x = {x.data(), {tokens, L::hidden}};
    // The draws of a sampling reference cannot be repeated: its choice is given, and its factors enter the weights
    // between the passes, which leaves the output as the only thing that is not compared.
    const bool sampled = file.find("router.c") != nullptr;
    if (sampled) {
        chosen.assign(ids.begin(), ids.end());
        in.chosen = {chosen.data(), {tokens, L::slots}};
    }
    gf::tape<L> tape(ctx, tokens);
    auto g = gf::make_gradients<L>(ctx);
    gf::forward(ctx, w, in, {y.data(), {tokens, L::hidden}}, tape);
    const auto routing = tape.routing();
    check_close(what + "logits", routing.logits.data(), read<T>(file, "router.logits"), tolerance);
    const auto dense = [&](const auto* i, const auto* v) { return as_matrix(i, v, n, L::slots, L::choices); };
    const auto own = dense(routing.ids.data(), routing.weights.data());
    if (sampled) {
        const auto q = read<T>(file, "router.q");
        check_close(what + "probabilities", own.data(), dense(ids.data(), q.data()), tolerance);
        for (std::size_t i = 0; i < weights.size(); ++i) routing.weights.data()[i] = weights[i];
    } else {
        check_close(what + "weights", own.data(), dense(ids.data(), weights.data()), tolerance);
        check_close(what + "output", y.data(), read<T>(file, "y"), tolerance);
    }
    gf::backward(ctx, w, in, tape, {dy.data(), {tokens, L::hidden}}, {dx.data(), {tokens, L::hidden}}, g);
    check_close(what + "dx", dx.data(), read<T>(file, "dx"), tolerance);
    check_close(what + "d logits", tape.logit_gradients().data(), read<T>(file, "grad.router.logits"), tolerance);
    const auto expected = expected_gradients<L>(ctx, model);
    gf::for_each_parameter(
        [&](const char* parameter, const auto& mine, const auto& theirs) {
            check_close(what + "d " + parameter, mine.data(),
                        std::vector<T>(theirs.data(), theirs.data() + theirs.size()), tolerance);
        },
        g, expected);
    // Experts without a token get zeros to the bit.
    for (int e = 0; e < L::experts; ++e)
        if (tape.plan().offsets[e] == tape.plan().offsets[e + 1])
            for (gf::index_t i = 0; i < g.expert(e).down.size(); ++i) BOOST_TEST(g.expert(e).down.data()[i] == 0);
}

template <const auto& Cases>
void check_blocks() {
    const auto one = [](auto index) {
        constexpr block_cases::gradient_case c = Cases[index.value];
        const std::string path =
            block_comparison::golden_path("gradients/blocks/" + std::string(c.name) + ".safetensors");
        if (path.empty()) return;
        check_block<c.c, double>(c.name, path);
        check_block<c.c, float>(c.name, path);
    };
    [&]<std::size_t... I>(std::index_sequence<I...>) { (one(std::integral_constant<std::size_t, I>{}), ...); }
    (std::make_index_sequence<std::size(Cases)>{});
}

}  // namespace block_gradients
