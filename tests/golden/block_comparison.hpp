// One block of a golden model, in one scalar type, against what the reference made of it.
#pragma once

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>
#include <gatefold/io/hub_block.hpp>

#include "block_cases.hpp"

namespace block_comparison {

namespace gf = gatefold;

/// A place in the golden data, or "" (and a message) where there are none: the environment names them, or the build.
inline std::string golden_path(const std::string& name) {
#if defined(GATEFOLD_GOLDEN_DIR)
    std::string folder = GATEFOLD_GOLDEN_DIR;
#else
    std::string folder;
#endif
    if (const char* set = std::getenv("GATEFOLD_GOLDEN_DIR"); set != nullptr && *set != '\0') folder = set;
    const std::string path = folder + "/" + name;
    if (!folder.empty() && std::filesystem::exists(path)) return path;
    BOOST_TEST_MESSAGE("skipped: no golden data " << path << " (GATEFOLD_GOLDEN_DIR)");
    return "";
}

template <class T>
std::vector<T> read(const gf::safetensors_file& file, const std::string& name) {
    const gf::stored_tensor& tensor = file.at(name);
    gf::index_t size = 1;
    for (const gf::index_t extent : tensor.shape) size *= extent;
    std::vector<T> values(static_cast<std::size_t>(size));
    file.read<T>(name, values, tensor.shape);
    return values;
}

/// max |a - b| <= tolerance * max |b|.
template <class A, class B>
void check_close(const std::string& what, const A* got, const std::vector<B>& expected, double tolerance) {
    double error = 0, scale = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const double d = std::fabs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
        if (!(d <= error)) error = d;
        scale = (std::max)(scale, std::fabs(static_cast<double>(expected[i])));
    }
    BOOST_TEST(error <= tolerance * scale, what << ": error " << error << " of " << scale);
}

/// Ids and weights of every token as one matrix [T, N]: the reference has an order of slots of its own.
template <class I, class W>
std::vector<double> as_matrix(const I* ids, const W* weights, std::size_t tokens, std::size_t slots,
                              std::size_t choices) {
    std::vector<double> matrix(tokens * choices);
    for (std::size_t i = 0; i < tokens * slots; ++i)
        if (ids[i] >= 0)
            matrix[i / slots * choices + static_cast<std::size_t>(ids[i])] +=
                weights != nullptr ? static_cast<double>(weights[i]) : 1.0;
    return matrix;
}

/// Runs the block in T; `name` is "block", or "experts" where the router reads something else.
template <gf::config C, class T>
void check_model(const block_cases::model_case& one, const std::string& folder) {
    using L = gf::layer<C, T>;
    constexpr bool wide = sizeof(T) == 8;
    const double tolerance = wide ? 1e-11 : 5e-6;
    const std::string bits = wide ? "64" : "", what = std::string(one.folder) + (wide ? " double " : " float ");
    const auto golden = gf::safetensors_file::open(folder + "/golden.safetensors");
    gf::context<gf::cpu> ctx(2);
    const auto w = gf::load_block<L>(ctx, folder, one.prefix);

    const bool apart = golden.find("block.input") == nullptr;
    const std::string side = apart ? "experts" : "block";
    const auto x = read<T>(golden, side + ".input" + bits), expected = read<T>(golden, side + ".output" + bits);
    const auto tokens = static_cast<gf::index_t>(x.size()) / L::hidden;
    std::vector<T> y(x.size()), router_x;
    std::vector<std::int32_t> starts;
    gf::batch<L> in;
    in.x = {x.data(), {tokens, L::hidden}};
    if (apart) {
        router_x = read<T>(golden, "router.input" + bits);
        in.router_x = {router_x.data(), {tokens, L::hidden}};
    }
    if (one.row > 0) {
        for (int t = 0; t < tokens; t += one.row) starts.push_back(t);
        in.sequence_starts = {starts.data(), {static_cast<gf::index_t>(starts.size())}};
    }
    gf::tape<L> tape(ctx, tokens);
    gf::forward(ctx, w, in, {y.data(), {tokens, L::hidden}}, tape);
    check_close(what + "output", y.data(), expected, tolerance);

    if constexpr (!L::is_dense) {
        const auto n = static_cast<std::size_t>(tokens);
        const auto routing = tape.routing();
        if (golden.find("router.logits" + bits))
            check_close(what + "logits", routing.logits.data(), read<T>(golden, "router.logits" + bits), tolerance);
        const auto got = as_matrix(routing.ids.data(), routing.weights.data(), n, L::slots, L::choices);
        if (golden.find("router.ids")) {
            const auto ids = read<std::int64_t>(golden, "router.ids");
            const auto weights = read<T>(golden, "router.weights" + bits);
            const auto slots = ids.size() / n;
            check_close(what + "weights", got.data(), as_matrix(ids.data(), weights.data(), n, slots, L::choices),
                        tolerance);
            std::vector<std::int32_t> kept(n * static_cast<std::size_t>(L::slots));
            for (std::size_t i = 0; i < kept.size(); ++i)
                kept[i] = tape.plan().place[static_cast<gf::index_t>(i)] < 0 ? -1 : routing.ids.data()[i];
            check_close(what + "ids",
                        as_matrix(kept.data(), static_cast<const T*>(nullptr), n, L::slots, L::choices).data(),
                        as_matrix(ids.data(), static_cast<const T*>(nullptr), n, slots, L::choices), 0);
        } else
            check_close(what + "weights", got.data(), read<T>(golden, "router.dense_weights" + bits), tolerance);
    }
}

/// Both scalar types of every case of a list, each configuration a type of its own.
template <const auto& Cases, std::size_t... I>
void check_models(std::index_sequence<I...>) {
    const auto one = [](auto index) {
        constexpr block_cases::model_case c = Cases[index.value];
        const std::string folder = golden_path("models/" + std::string(c.folder));
        if (folder.empty()) return;
        BOOST_TEST_CONTEXT(c.folder) {
            check_model<c.c, double>(c, folder);
            check_model<c.c, float>(c, folder);
        }
    };
    (one(std::integral_constant<std::size_t, I>{}), ...);
}
template <const auto& Cases>
void check_models() {
    check_models<Cases>(std::make_index_sequence<std::size(Cases)>{});
}

}  // namespace block_comparison
