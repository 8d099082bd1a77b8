// What load_block says about files that do not fit, and where it puts what does.
#include <algorithm>
#include <cstdint>
#include <fstream>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <unistd.h>

#include <gatefold/io/safetensors_writer.hpp>

#include "block_comparison.hpp"

namespace gf = gatefold;
namespace fs = std::filesystem;
using block_comparison::golden_path;

namespace {

/// What load_block throws, or "".
template <class L>
std::string complaint(const gf::checkpoint& model, const std::string& prefix) {
    gf::context<gf::cpu> ctx(1);
    try {
        gf::load_block<L>(ctx, model, prefix);
    } catch (const gf::file_error& e) {
        return e.what();
    }
    return "";
}

bool contains(const std::string& text, const std::string& part) {
    const bool found = text.find(part) != std::string::npos;
    if (!found) BOOST_TEST_MESSAGE("not there: " << part << "\nin: " << text);
    return found;
}

int lines(const std::string& text) { return static_cast<int>(std::count(text.begin(), text.end(), '\n')); }

/// A checkpoint in a file of the test's own folder, removed with it.
struct scratch_checkpoint {
    std::string path = (fs::temp_directory_path() / ("gatefold_block_" + std::to_string(::getpid()))).string();
    gf::safetensors_writer writer;
    std::vector<std::vector<float>> values;

    scratch_checkpoint() { values.reserve(64); }
    ~scratch_checkpoint() { fs::remove(path); }
    void add(const std::string& name, const std::vector<gf::index_t>& shape) {
        gf::index_t size = 1;
        for (const gf::index_t extent : shape) size *= extent;
        std::vector<float> v(static_cast<std::size_t>(size));
        for (std::size_t i = 0; i < v.size(); ++i)
            v[i] = static_cast<float>(i) + static_cast<float>(values.size()) * 1000;
        values.push_back(std::move(v));
        writer.add(name, gf::file_dtype::f32, std::as_bytes(std::span(values.back())), shape);
    }
    gf::checkpoint open() {
        const auto bytes = writer.serialise();
        std::ofstream(path, std::ios::binary)
            .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
        return gf::checkpoint::open(path);
    }
};

using mixtral =
    gf::layer<gf::config{.hidden = 4, .ffn = 3, .experts = 2, .top_k = 1, .router = gf::routers::olmoe}, float>;

void add_mixtral(scratch_checkpoint& file) {
    file.add("m.gate.weight", {2, 4});
    for (const char* e : {"0", "1"}) {
        const std::string root = "m.experts." + std::string(e) + ".";
        file.add(root + "w1.weight", {3, 4});
        file.add(root + "w2.weight", {4, 3});
        file.add(root + "w3.weight", {3, 4});
    }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(golden)
BOOST_AUTO_TEST_SUITE(blocks)

BOOST_AUTO_TEST_CASE(a_block_lands_in_the_fused_layout) {
    scratch_checkpoint file;
    add_mixtral(file);
    gf::context<gf::cpu> ctx(1);
    const auto w = gf::load_block<mixtral>(ctx, file.open(), "m");
    for (int e = 0; e < 2; ++e)
        for (int i = 0; i < 12; ++i) {
            const auto at = [&](int tensor) { return static_cast<float>((1 + 3 * e + tensor) * 1000 + i); };
            BOOST_TEST(w.expert(e).gate_up.data()[i] == at(0));
            BOOST_TEST(w.expert(e).down.data()[i] == at(1));
            BOOST_TEST(w.expert(e).gate_up.data()[12 + i] == at(2));
        }
    BOOST_TEST(w.router(1, 3) == 7.0f);
}

BOOST_AUTO_TEST_CASE(every_mismatch_is_in_one_message) {
    scratch_checkpoint file;
    file.add("m.gate.weight", {3, 4});
    file.add("m.gate.e_score_correction_bias", {2});
    file.add("m.shared_expert.down_proj.weight", {4, 3});
    file.add("m.experts.0.w1.weight", {4, 3});
    file.add("m.experts.0.w2.weight", {4, 3});
    file.add("m.experts.1.w1.weight", {3, 4});
    file.add("m.experts.1.w2.weight", {4, 3});
    file.add("m.experts.1.w3.weight", {3, 4});
    file.add("m.experts.1.w3.bias", {3});
    file.add("m.experts.2.w2.weight", {4, 3});
    const std::string text = complaint<mixtral>(file.open(), "m");
    BOOST_TEST(contains(text, file.path + ": block \"m.\" does not fit the layer\n"));
    BOOST_TEST(contains(text, "\"m.gate.weight\": expected shape [2, 4], got [3, 4]"));
    BOOST_TEST(contains(text, "\"m.gate.e_score_correction_bias\": expected a layer with a selection bias"));
    BOOST_TEST(contains(text, "\"m.shared_expert.down_proj.weight\": expected a layer with a shared expert"));
    BOOST_TEST(contains(text, "\"m.experts.0.w1.weight\": expected shape [3, 4], got [4, 3]"));
    BOOST_TEST(contains(text, "\"m.experts.0.w3.weight\": expected a tensor of this name, got none"));
    BOOST_TEST(contains(text, "\"m.experts.1.w3.bias\": expected experts without biases"));
    BOOST_TEST(contains(text, "\"m.experts.2.w2.weight\": expected 2 experts, got more"));
    BOOST_TEST(lines(text) == 7);
}

BOOST_AUTO_TEST_CASE(wrong_types_and_names_are_in_it_too) {
    scratch_checkpoint file;
    const std::vector<std::int64_t> whole(8);
    const std::vector<std::byte> bytes(12);
    file.writer.add("m.gate.weight", std::span(whole), {2, 4});
    file.writer.add("m.experts.0.w1.weight", gf::file_dtype::f8_e4m3, bytes, std::vector<gf::index_t>{3, 4});
    file.add("m.experts.0.w2.weight", {4, 3});
    file.add("m.experts.0.w3.weight", {3, 4});
    file.add("m.experts.0.w4.weight", {3, 4});
    file.add("m.experts.1.w1.weight", {3, 4, 1});
    file.add("m.experts.1.w2.weight_scale", {1});
    file.add("m.experts.1.w2.weight", {});
    file.add("m.experts.1.w3.weight", {3, 4});
    file.add("m.gate.temperature", {1});
    file.add("m.norm.weight", {4});  // of the layer around the block
    const std::string text = complaint<mixtral>(file.open(), "m");
    BOOST_TEST(contains(text, "\"m.gate.weight\": expected floating-point numbers, got I64"));
    BOOST_TEST(contains(text, "\"m.experts.0.w1.weight_scale_inv\": expected the scales of an FP8 weight, got none"));
    BOOST_TEST(contains(text, "\"m.experts.0.w4.weight\": expected a layer with a place for it, got this tensor"));
    BOOST_TEST(contains(text, "\"m.experts.1.w1.weight\": expected shape [3, 4], got [3, 4, 1]"));
    BOOST_TEST(contains(text, "\"m.experts.1.w2.weight\": expected shape [4, 3], got []"));
    BOOST_TEST(contains(text, "\"m.experts.1.w2.weight_scale\": expected a layer with a place for it"));
    BOOST_TEST(contains(text, "\"m.gate.temperature\": expected a layer with a place for it"));
    BOOST_TEST(lines(text) == 7);
}

/// One block in files of type Stored, read into weights of type T: what is kept is the stored number, rounded once.
template <class Stored, class T>
void check_conversion() {
    scratch_checkpoint file;
    std::vector<std::vector<Stored>> kept;
    kept.reserve(8);
    const auto add = [&](const std::string& name, const std::vector<gf::index_t>& shape) {
        gf::index_t size = 1;
        for (const gf::index_t extent : shape) size *= extent;
        std::vector<Stored> values;
        for (gf::index_t i = 0; i < size; ++i)  // more digits than any of the narrow types holds
            values.push_back(static_cast<Stored>(
                static_cast<float>((1 + static_cast<double>(i) / 3000 + static_cast<double>(kept.size())) / 7)));
        kept.push_back(values);
        file.writer.add(name, std::span(kept.back()), shape);
    };
    add("m.gate.weight", {2, 4});
    for (const char* e : {"0", "1"})
        for (const char* w : {"w1", "w2", "w3"})
            add("m.experts." + std::string(e) + "." + w + ".weight",
                w[1] == '2' ? std::vector<gf::index_t>{4, 3} : std::vector<gf::index_t>{3, 4});
    gf::context<gf::cpu> ctx(1);
    const auto w = gf::load_block<gf::layer<mixtral::c, T>>(ctx, file.open(), "m");
    const auto check = [](const T* got, const std::vector<Stored>& stored) {
        bool same = true;
        for (std::size_t i = 0; i < stored.size(); ++i) {
            const double number = static_cast<double>(stored[i]);
            same = same && static_cast<double>(got[i]) == static_cast<double>(static_cast<T>(number));
        }
        BOOST_TEST(same);
    };
    for (int e = 0; e < 2; ++e) {
        const std::size_t first = 1 + 3 * static_cast<std::size_t>(e);
        check(w.expert(e).gate_up.data(), kept[first]);
        check(w.expert(e).down.data(), kept[first + 1]);
        check(w.expert(e).gate_up.data() + 12, kept[first + 2]);
    }
    if constexpr (std::is_same_v<std::remove_cv_t<std::remove_reference_t<decltype(w.router.data()[0])>>, T>)
        check(w.router.data(), kept[0]);
}
template <class T>
void check_conversions_to() {
    check_conversion<double, T>();
    check_conversion<float, T>();
    check_conversion<gf::bf16, T>();
    check_conversion<gf::f16, T>();
}

BOOST_AUTO_TEST_CASE(every_stored_type_goes_into_every_type_of_weights) {
    check_conversions_to<float>();
    check_conversions_to<double>();
    check_conversions_to<gf::bf16>();
}

BOOST_AUTO_TEST_CASE(blocks_are_found) {
    scratch_checkpoint file;
    add_mixtral(file);
    file.add("n.mlp.gate.weight", {2, 4});
    file.add("a.layers.10.router.layer.weight", {2, 4});
    file.add("a.layers.10.input_linear.weight", {2, 6, 4});
    file.add("self_attn.gate.weight", {2, 4});
    const auto model = file.open();
    const std::vector<std::string> expected = {"a.layers.10", "m"};
    BOOST_TEST(gf::find_blocks(model) == expected, boost::test_tools::per_element());
    BOOST_TEST(contains(complaint<mixtral>(model, "model"), "\n  blocks of this file: \"a.layers.10\" \"m\""));
}

BOOST_AUTO_TEST_CASE(an_empty_prefix_and_another_block) {
    scratch_checkpoint file;
    add_mixtral(file);
    const auto model = file.open();
    BOOST_TEST(complaint<mixtral>(model, "m") == "");
    const std::string text = complaint<mixtral>(model, "n");
    BOOST_TEST(contains(text, "\"gate.weight\" or \"router.weight\""));
    BOOST_TEST(contains(text, "expected experts under a known name"));
    using biased = gf::layer<gf::with(mixtral::c, &gf::config::bias, true), float>;
    BOOST_TEST(contains(complaint<biased>(model, "m"), "\"m.experts.0.w1.bias\": expected a tensor of this name"));
    using plain = gf::layer<gf::with(mixtral::c, &gf::config::act, gf::activation::relu), float>;
    BOOST_TEST(contains(complaint<plain>(model, "m"), "without a gate"));
}

BOOST_AUTO_TEST_CASE(a_dense_layer_is_a_plain_ffn) {
    scratch_checkpoint file;
    file.add("mlp.gate_proj.weight", {3, 4});
    file.add("mlp.up_proj.weight", {3, 4});
    file.add("mlp.down_proj.weight", {4, 3});
    using dense = gf::layer<gf::config{.hidden = 4, .ffn = 3}, gf::bf16>;
    gf::context<gf::cpu> ctx(1);
    const auto w = gf::load_block<dense>(ctx, file.open(), "mlp");
    BOOST_TEST(static_cast<float>(w.expert(0).gate_up.data()[5]) == 5.0f);
    BOOST_TEST(static_cast<float>(w.expert(0).gate_up.data()[12]) == 1000.0f);
    BOOST_TEST(static_cast<float>(w.expert(0).down.data()[0]) == 2000.0f);
}

BOOST_AUTO_TEST_CASE(fused_experts_lie_in_either_orientation) {
    // 2F = H, so that gate_up is square and only down tells.
    using square =
        gf::layer<gf::config{.hidden = 4, .ffn = 2, .experts = 2, .top_k = 1, .router = gf::routers::olmoe}, float>;
    scratch_checkpoint straight;
    straight.add("m.router.weight", {2, 4});
    straight.add("m.experts.gate_up_proj", {2, 4, 4});
    straight.add("m.experts.down_proj", {2, 4, 2});
    gf::context<gf::cpu> ctx(1);
    {
        const auto w = gf::load_block<square>(ctx, straight.open(), "m");
        BOOST_TEST(w.gate_up(1, 2, 3) == 1000 + 16 + 11.0f);
        BOOST_TEST(w.down(1, 3, 1) == 2000 + 8 + 7.0f);
    }
    scratch_checkpoint transposed;
    transposed.add("m.router.weight", {2, 4});
    transposed.add("m.experts.gate_up_proj", {2, 4, 4});
    transposed.add("m.experts.down_proj", {2, 2, 4});
    const auto w = gf::load_block<square>(ctx, transposed.open(), "m");
    BOOST_TEST(w.gate_up(1, 2, 3) == 1000 + 16 + 3 * 4 + 2.0f);
    BOOST_TEST(w.down(1, 3, 1) == 2000 + 8 + 4 + 3.0f);
}

BOOST_AUTO_TEST_CASE(wrong_layers_for_golden_files_are_refused) {
    const std::string mixtral_folder = golden_path("models/mixtral"), oss = golden_path("models/gpt_oss_mxfp4");
    if (mixtral_folder.empty() || oss.empty()) return;
    constexpr gf::config c{.hidden = 72, .ffn = 44, .experts = 5, .top_k = 2, .router = gf::routers::mixtral};
    const auto model = gf::checkpoint::open(mixtral_folder);
    const std::string prefix = "model.layers.1.block_sparse_moe";
    BOOST_TEST((complaint<gf::layer<c, float>>(model, prefix) == ""));
    BOOST_TEST(contains(complaint<gf::layer<gf::with(c, &gf::config::experts, 4), float>>(model, prefix),
                        "\"model.layers.1.block_sparse_moe.experts.4.w2.weight\": expected 4 experts, got more"));
    BOOST_TEST(contains(complaint<gf::layer<gf::with(c, &gf::config::experts, 6), float>>(model, prefix),
                        "\"model.layers.1.block_sparse_moe.experts.5.\": expected an expert's matrices, got none"));
    BOOST_TEST(lines(complaint<gf::layer<gf::with(c, &gf::config::hidden, 64), float>>(model, prefix)) == 16);
    constexpr gf::config gpt{.hidden = 64,
                             .ffn = 64,
                             .experts = 5,
                             .top_k = 3,
                             .act = gf::activation::clamped_swiglu,
                             .limit = 7,
                             .bias = true,
                             .router = gf::routers::gpt_oss};
    const std::string text = complaint<gf::layer<gpt, float>>(gf::checkpoint::open(oss), "model.layers.0.mlp");
    BOOST_TEST(contains(text, "gate_up_proj_blocks\": expected shape [5, 128, 2, 16], got [5, 64, 2, 16]"));
    BOOST_TEST(contains(text, "down_proj_scales\": expected shape [5, 64, 2], got [5, 64, 1]"));
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
