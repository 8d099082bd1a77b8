// One block of a golden model against what the reference made of it, in double and in float, from every file that holds
// its weights. block_generator writes a call of check_model for every folder.
//
// Only what runs a layer is a template of its configuration: everything else is compiled once.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>
#include <gatefold/io/hub_block.hpp>

#include "block_folders.hpp"
#include "golden_path.hpp"

namespace block_comparison {

namespace gf = gatefold;

using golden_data::golden_path;

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
void check_close(const std::string& what, const std::vector<A>& got, const std::vector<B>& expected, double tolerance) {
    BOOST_REQUIRE_EQUAL(got.size(), expected.size());
    double error = 0, scale = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const double d = std::fabs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
        if (!(d <= error)) error = d;
        scale = (std::max)(scale, std::fabs(static_cast<double>(expected[i])));
    }
    BOOST_TEST(error <= tolerance * scale, what << ": error " << error << " of " << scale);
}

/// Ids and weights of every token as one matrix [T, N]: the reference has an order of slots of its own.
template <class I, class W = double>
std::vector<double> as_matrix(const std::vector<I>& ids, std::size_t tokens, int choices,
                              const std::vector<W>& weights = {}) {
    const std::size_t slots = ids.size() / tokens;
    std::vector<double> matrix(tokens * static_cast<std::size_t>(choices));
    for (std::size_t i = 0; i < ids.size(); ++i)
        if (ids[i] >= 0)
            matrix[i / slots * static_cast<std::size_t>(choices) + static_cast<std::size_t>(ids[i])] +=
                weights.empty() ? 1.0 : static_cast<double>(weights[i]);
    return matrix;
}

/// What a block is run on and with.
template <class T>
struct block_input {
    const gf::checkpoint* model = nullptr;
    std::string prefix;
    std::vector<T> x, router_x, dy;
    std::vector<std::int32_t> sequence_starts, chosen;
    std::vector<T> weights;  ///< that stand for those of the router in the backward pass
};

template <class T>
struct named_values {
    std::string name;
    std::vector<T> values;
    bool operator==(const named_values&) const = default;
};

template <class T>
struct block_result {
    std::vector<named_values<T>> parameters;
    std::vector<T> y, logits, weights;
    std::vector<std::int32_t> ids, kept;  ///< kept: -1 where an expert had no room
    // Of the backward pass.
    std::vector<T> dx, d_logits;
    std::vector<named_values<T>> gradients, expected_gradients;
    std::vector<T> of_idle_experts;  ///< gradients of experts without a token
};

template <class Set>
auto values_of(const Set& set) {
    using T = typename std::remove_cvref_t<decltype(set.down)>::value_type;
    std::vector<named_values<std::remove_const_t<T>>> values;
    gf::for_each_parameter(
        [&](const char* name, const auto& slot) {
            values.push_back({name, {slot.data(), slot.data() + slot.size()}});
        },
        set);
    return values;
}

/// The batch of an input.
template <class L>
gf::batch<L> batch_of(const block_input<typename L::value_type>& input) {
    const auto tokens = static_cast<gf::index_t>(input.x.size()) / L::hidden;
    gf::batch<L> in;
    in.x = {input.x.data(), {tokens, L::hidden}};
    if (!input.router_x.empty()) in.router_x = {input.router_x.data(), {tokens, L::hidden}};
    if (!input.chosen.empty()) in.chosen = {input.chosen.data(), {tokens, L::slots}};
    if constexpr (L::c.capacity.shared_by == gf::capacity_group::sequence)
        in.sequence_starts = {input.sequence_starts.data(), {static_cast<gf::index_t>(input.sequence_starts.size())}};
    return in;
}

/// What is left of a forward pass.
template <class L, class T>
void keep_routing(gf::tape<L>& tape, std::size_t tokens, block_result<T>& result) {
    if constexpr (!L::is_dense) {
        const auto routing = tape.routing();
        const std::size_t places = tokens * static_cast<std::size_t>(L::slots);
        result.ids.assign(routing.ids.data(), routing.ids.data() + places);
        result.weights.assign(routing.weights.data(), routing.weights.data() + places);
        result.logits.assign(routing.logits.data(),
                             routing.logits.data() + tokens * static_cast<std::size_t>(L::choices));
        result.kept = result.ids;
        for (std::size_t i = 0; i < places; ++i)
            if (tape.plan().place[static_cast<gf::index_t>(i)] < 0) result.kept[i] = -1;
    }
}

template <gf::config C, class T>
block_result<T> run_forward(const block_input<T>& input) {
    using L = gf::layer<C, T>;
    gf::context<gf::cpu> ctx(2);
    const auto w = gf::load_block<L>(ctx, *input.model, input.prefix);
    const auto tokens = static_cast<gf::index_t>(input.x.size()) / L::hidden;
    block_result<T> result;
    result.parameters = values_of(w);
    result.y.resize(input.x.size());
    gf::tape<L> tape(ctx, tokens);
    gf::forward(ctx, w, batch_of<L>(input), {result.y.data(), {tokens, L::hidden}}, tape);
    keep_routing(tape, static_cast<std::size_t>(tokens), result);
    return result;
}

/// The prefix of the tensors of a block that the reference calls `block`: a file may begin it otherwise ("backbone" for
/// "model"), and have another name for the last part of it.
inline std::string prefix_of(const gf::checkpoint& model, const std::string& block) {
    const auto layer_of = [](const std::string& name) { return name.substr(0, name.rfind('.')); };
    const auto prefixes = gf::find_blocks(model);
    for (std::string tail = block; tail.find('.') != std::string::npos; tail = tail.substr(tail.find('.') + 1)) {
        for (const std::string& prefix : prefixes)
            if (("." + prefix).ends_with("." + tail)) return prefix;
        for (const std::string& prefix : prefixes)
            if (("." + layer_of(prefix)).ends_with("." + layer_of(tail))) return prefix;
    }
    BOOST_ERROR("no tensors of a block " << block);
    return block;
}

/// The files that hold the weights of a model: what a folder is opened as, and other layouts beside it.
inline std::vector<std::string> checkpoints_of(const std::string& folder) {
    std::vector<std::string> found = {folder};
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        const std::string name = entry.path().filename().string();
        if (name.ends_with(".safetensors") && !name.starts_with("model") && !name.starts_with("golden"))
            found.push_back(entry.path().string());
    }
    return found;
}

template <class T>
void check_model_with(const std::string& name, const std::string& folder, const gf::config& c,
                      block_result<T> (*run)(const block_input<T>&)) {
    constexpr bool wide = sizeof(T) == 8;
    constexpr double tolerance = wide ? 1e-11 : 5e-6;
    const std::string bits = wide ? "64" : "", what = name + (wide ? " double " : " float ");
    const auto golden = gf::safetensors_file::open(folder + "/golden.safetensors");
    const std::string* block = golden.find_metadata("block");
    BOOST_REQUIRE(block != nullptr);

    // Where the router reads something else than the experts the reference has no input of the block.
    const bool apart = golden.find("block.input") == nullptr;
    const std::string side = apart ? "experts" : "block";
    block_input<T> input;
    input.x = read<T>(golden, side + ".input" + bits);
    if (apart) input.router_x = read<T>(golden, "router.input" + bits);
    const std::size_t tokens = input.x.size() / static_cast<std::size_t>(c.hidden);
    const gf::stored_tensor* ids_of_decoder = golden.find("decoder_input_ids");
    const auto row =
        static_cast<std::size_t>((ids_of_decoder != nullptr ? *ids_of_decoder : golden.at("input_ids")).shape.at(1));
    for (std::size_t t = 0; t < tokens; t += row) input.sequence_starts.push_back(static_cast<std::int32_t>(t));

    block_result<T> result;
    for (const std::string& path : checkpoints_of(folder)) {
        const auto model = gf::checkpoint::open(path);
        input.model = &model;
        input.prefix = prefix_of(model, *block);
        block_result<T> one = run(input);
        if (path != folder)
            BOOST_TEST((one.parameters == result.parameters), path << " holds other weights than the model");
        result = std::move(one);
    }
    check_close(what + "output", result.y, read<T>(golden, side + ".output" + bits), tolerance);
    if (gf::is_dense(c)) return;

    const int n = gf::choices(c);
    if (golden.find("router.logits" + bits))
        check_close(what + "logits", result.logits, read<T>(golden, "router.logits" + bits), tolerance);
    const auto got = as_matrix(result.ids, tokens, n, result.weights);
    if (golden.find("router.ids")) {
        const auto ids = read<std::int64_t>(golden, "router.ids");
        check_close(what + "weights", got, as_matrix(ids, tokens, n, read<T>(golden, "router.weights" + bits)),
                    tolerance);
        check_close(what + "ids", as_matrix(result.kept, tokens, n), as_matrix(ids, tokens, n), 0);
    } else
        check_close(what + "weights", got, read<T>(golden, "router.dense_weights" + bits), tolerance);
}

/// Compares the block of models/NAME, in both scalar types.
template <gf::config C>
void check_model(const std::string& name) {
    const std::string folder = golden_path("models/" + name);
    if (folder.empty()) return;
    BOOST_TEST((block_folders::model_case(golden_path(""), name).c == C),
               "the literal is another value than its text in " << folder << "/config.json says");
    check_model_with<double>(name, folder, C, run_forward<C, double>);
    check_model_with<float>(name, folder, C, run_forward<C, float>);
}

}  // namespace block_comparison
