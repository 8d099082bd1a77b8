// Checkpoints of reference implementations: rewritten byte for byte, decoded bit for bit, and equal in both layouts of
// the experts (one tensor per expert, one for all of them).
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/io/checkpoint.hpp>
#include <gatefold/io/safetensors.hpp>
#include <gatefold/io/safetensors_writer.hpp>
#include <gatefold/io/small_floats.hpp>

#include "golden_path.hpp"

namespace gf = gatefold;
using golden_data::golden_path;
namespace fs = std::filesystem;

namespace {

std::size_t elements(std::span<const gf::index_t> shape) {
    gf::index_t product = 1;
    for (const gf::index_t extent : shape) product *= extent;
    return static_cast<std::size_t>(product);
}

template <class T, class File>
std::vector<T> read(const File& file, const std::string& name, std::vector<gf::index_t> shape) {
    std::vector<T> values(elements(shape));
    file.template read<T>(name, values, shape);
    return values;
}

template <class T>
bool same_bits(std::span<const T> a, std::span<const T> b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/// Equal bits, but for NaN, whose payload is nobody's business.
void check_values(std::span<const float> got, std::span<const float> expected, std::string_view what) {
    BOOST_REQUIRE(got.size() == expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
        const bool equal = std::bit_cast<std::uint32_t>(got[i]) == std::bit_cast<std::uint32_t>(expected[i]) ||
                           (std::isnan(got[i]) && std::isnan(expected[i]));
        if (!equal) {
            BOOST_ERROR(what << ", element " << i << ": " << got[i] << " instead of " << expected[i]);
            return;
        }
    }
}

/// fused gate_up [E, 2F, H] and down [E, H, F] against `expert(e, part)`, part 0 gate, 1 up, 2 down; returns E.
template <class Name>
void check_fused(const std::string& folder, const std::string& fused_prefix, Name name) {
    const auto model = gf::checkpoint::open(folder);
    const auto fused = gf::safetensors_file::open(folder + "/fused.safetensors");
    int layers = 0;
    for (int layer = 0; layer < 100; ++layer) {
        const std::string prefix = "model.layers." + std::to_string(layer) + ".";
        const gf::stored_tensor* gate_up = fused.find(prefix + fused_prefix + ".gate_up_proj");
        if (gate_up == nullptr) continue;
        ++layers;
        const gf::index_t experts = gate_up->shape.at(0), rows = gate_up->shape.at(1), hidden = gate_up->shape.at(2);
        const gf::index_t ffn = rows / 2;
        const auto both = read<float>(fused, gate_up->name, {experts, rows, hidden});
        const auto down = read<float>(fused, prefix + fused_prefix + ".down_proj", {experts, hidden, ffn});
        const auto one = static_cast<std::size_t>(ffn * hidden);
        for (gf::index_t e = 0; e < experts; ++e)
            for (int part = 0; part < 3; ++part) {
                const std::string tensor = prefix + name(e, part);
                const auto values =
                    part == 2 ? read<float>(model, tensor, {hidden, ffn}) : read<float>(model, tensor, {ffn, hidden});
                const auto at = static_cast<std::size_t>(e) * one * (part == 2 ? 1 : 2) + (part == 1 ? one : 0);
                const auto& stacked = part == 2 ? down : both;
                if (!same_bits<float>(values, std::span(stacked).subspan(at, one)))
                    BOOST_ERROR(folder << ": " << tensor);
            }
        BOOST_TEST((model.find(prefix + name(experts, 0)) == nullptr));
    }
    BOOST_TEST(layers > 0, folder);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(golden)
BOOST_AUTO_TEST_SUITE(checkpoints)

BOOST_AUTO_TEST_CASE(the_writer_repeats_every_reference_file) {
    const std::string root = golden_path("models");
    if (root.empty()) return;
    int files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(root.substr(0, root.rfind('/')))) {
        const std::string path = entry.path().string();
        if (entry.path().extension() != ".safetensors" || path.find("/hostile/") != std::string::npos) continue;
        const auto file = gf::safetensors_file::open(path);
        // Where there are several metadata keys the reference writes them in an order that differs from run to run.
        if (file.metadata().size() > 1) continue;
        gf::safetensors_writer writer;
        for (const gf::stored_tensor& tensor : file.tensors())
            writer.add(tensor.name, tensor.type, tensor.bytes, tensor.shape);
        const auto again = writer.serialise(file.metadata());
        const auto original = gf::open_file(path);
        BOOST_TEST(same_bits<std::byte>(again, original.bytes()), path);
        ++files;
    }
    BOOST_TEST_MESSAGE(files << " files rewritten");
    BOOST_TEST(files > 40);
}

BOOST_AUTO_TEST_CASE(small_floats_decode_as_the_tables) {
    const std::string path = golden_path("quant/small_floats.safetensors");
    if (path.empty()) return;
    const auto file = gf::safetensors_file::open(path);
    const auto check = [&](const char* name, gf::index_t codes, auto decode) {
        std::vector<float> values;
        for (int code = 0; code < codes; ++code) values.push_back(decode(static_cast<std::uint8_t>(code)));
        check_values(values, read<float>(file, name, {codes}), name);
    };
    check("e4m3.values", 256, gf::decode_e4m3);
    check("e5m2.values", 256, gf::decode_e5m2);
    check("e8m0.values", 256, gf::decode_e8m0);
    check("e2m1.values", 16, gf::decode_e2m1);
}

BOOST_AUTO_TEST_CASE(fp8_blocks_decode_bit_for_bit) {
    const std::string path = golden_path("quant/small_floats.safetensors");
    if (path.empty()) return;
    const auto model = gf::checkpoint::open(path);
    const auto expected = read<float>(model, "fp8.values", {150, 270});
    check_values(read<float>(model, "fp8.weight", {150, 270}), expected, "fp8.weight");

    const auto file = gf::safetensors_file::open(path);
    auto values = read<float>(file, "fp8.weight", {150, 270});
    gf::apply_block_scales(values, read<float>(file, "fp8.weight_scale_inv", {2, 3}), 150, 270);
    check_values(values, expected, "apply_block_scales");
    const auto wide = read<double>(model, "fp8.weight", {150, 270});
    const auto narrow = read<gf::bf16>(model, "fp8.weight", {150, 270});
    for (std::size_t i = 0; i < values.size(); ++i)
        if (wide[i] != static_cast<double>(expected[i]) || narrow[i].bits != gf::bf16(expected[i]).bits)
            BOOST_ERROR("element " << i);
}

BOOST_AUTO_TEST_CASE(hub_mxfp4_decodes_bit_for_bit) {
    const std::string path = golden_path("quant/hub_mxfp4.safetensors");
    if (path.empty()) return;
    const auto file = gf::safetensors_file::open(path);
    const auto expected = read<float>(file, "values", {3, 10, 64});
    std::vector<float> values(expected.size());
    gf::decode_mxfp4(file.at("blocks").bytes, file.at("scales").bytes, values);
    check_values(values, expected, "hub_mxfp4");
    const auto transposed = read<float>(file, "values_transposed", {3, 64, 10});
    for (std::size_t e = 0; e < 3; ++e)
        for (std::size_t row = 0; row < 10; ++row)
            for (std::size_t column = 0; column < 64; ++column)
                if (values[(e * 10 + row) * 64 + column] != transposed[(e * 64 + column) * 10 + row])
                    BOOST_ERROR("not the transpose");
}

BOOST_AUTO_TEST_CASE(every_model_opens_and_reads) {
    const std::string root = golden_path("models");
    if (root.empty()) return;
    int models = 0;
    for (const auto& entry : fs::directory_iterator(root)) {
        if (!entry.is_directory()) continue;
        BOOST_TEST_CONTEXT(entry.path().filename()) {
            const auto model = gf::checkpoint::open(entry.path().string());
            BOOST_TEST(model.size() > 0u);
            for (std::size_t i = 0; i < model.size(); ++i) {
                const gf::stored_tensor& tensor = model[i];
                if (!gf::readable_as<float>(tensor.type)) continue;
                for (const float value : read<float>(model, tensor.name, tensor.shape))
                    if (!std::isfinite(value)) BOOST_ERROR(tensor.name << " is not finite");
            }
            ++models;
        }
    }
    BOOST_TEST(models >= 41);
}

BOOST_AUTO_TEST_CASE(shards_of_qwen3_are_one_model) {
    const std::string folder = golden_path("models/qwen3_moe_f16_sharded");
    if (folder.empty()) return;
    const auto model = gf::checkpoint::open(folder);
    BOOST_TEST(model.files().size() == 2u);
    std::size_t bytes = 0, tensors = 0;
    for (std::size_t i = 0; i < model.size(); ++i) {
        bytes += model[i].bytes.size();
        BOOST_TEST((model[i].type == gf::file_dtype::f16));
    }
    for (const auto& file : model.files()) tensors += file.tensors().size();
    BOOST_TEST(bytes == 252224u);  // total_size of the index
    BOOST_TEST(model.size() == tensors);
    const auto halves = read<gf::f16>(model, "lm_head.weight", {199, 64});
    const auto floats = read<float>(model, "lm_head.weight", {199, 64});
    for (std::size_t i = 0; i < halves.size(); ++i)
        if (static_cast<float>(halves[i]) != floats[i]) BOOST_ERROR("element " << i);
}

BOOST_AUTO_TEST_CASE(fused_experts_are_the_single_ones_stacked) {
    const auto deepseek_names = [](gf::index_t e, int part) {
        constexpr const char* parts[] = {".gate_proj", ".up_proj", ".down_proj"};
        return "mlp.experts." + std::to_string(e) + parts[part] + ".weight";
    };
    const auto mixtral_names = [](gf::index_t e, int part) {
        constexpr const char* parts[] = {".w1", ".w3", ".w2"};
        return "block_sparse_moe.experts." + std::to_string(e) + parts[part] + ".weight";
    };
    if (const std::string folder = golden_path("models/mixtral"); !folder.empty())
        check_fused(folder, "mlp.experts", mixtral_names);
    for (const char* model : {"models/qwen3_moe", "models/deepseek_v3"})
        if (const std::string folder = golden_path(model); !folder.empty())
            check_fused(folder, "mlp.experts", deepseek_names);
}

BOOST_AUTO_TEST_CASE(deepseek_fp8_needs_and_applies_its_scales) {
    const std::string folder = golden_path("models/deepseek_v3_fp8");
    if (folder.empty()) return;
    const auto model = gf::checkpoint::open(folder);
    int scaled = 0;
    for (std::size_t i = 0; i < model.size(); ++i) {
        const gf::stored_tensor& tensor = model[i];
        if (tensor.type != gf::file_dtype::f8_e4m3) continue;
        ++scaled;
        const gf::index_t rows = tensor.shape.at(0), columns = tensor.shape.at(1);
        const auto values = read<float>(model, tensor.name, tensor.shape);
        const auto scales = read<float>(model, tensor.name + "_scale_inv", {(rows + 127) / 128, (columns + 127) / 128});
        for (gf::index_t r = 0; r < rows; ++r)
            for (gf::index_t c = 0; c < columns; ++c) {
                const auto at = static_cast<std::size_t>(r * columns + c);
                const float code = gf::decode_e4m3(std::to_integer<std::uint8_t>(tensor.bytes[at]));
                const float scale = scales[static_cast<std::size_t>(r / 128 * ((columns + 127) / 128) + c / 128)];
                if (values[at] != code * scale) BOOST_ERROR(tensor.name << " [" << r << ", " << c << "]");
            }
    }
    BOOST_TEST(scaled == 34);
}

BOOST_AUTO_TEST_CASE(gpt_oss_mxfp4_experts_are_read_in_their_stored_order) {
    const std::string folder = golden_path("models/gpt_oss_mxfp4");
    if (folder.empty()) return;
    const auto model = gf::checkpoint::open(folder);
    const std::string experts = "model.layers.0.mlp.experts.";
    BOOST_TEST(model.has_mxfp4(experts + "gate_up_proj"));
    BOOST_TEST(!model.has_mxfp4(experts + "gate_up_proj_bias"));
    std::vector<float> gate_up(5 * 64 * 64), down(5 * 64 * 32), expected(5 * 64 * 64);
    model.read_mxfp4<float>(experts + "gate_up_proj", gate_up, {5, 64, 64});
    model.read_mxfp4<float>(experts + "down_proj", down, {5, 64, 32});
    gf::decode_mxfp4(model.find(experts + "gate_up_proj_blocks")->bytes,
                     model.find(experts + "gate_up_proj_scales")->bytes, expected);
    check_values(gate_up, expected, "gate_up_proj");
    double sum = 0;
    for (const float value : down) sum += std::fabs(static_cast<double>(value));
    BOOST_TEST(sum > 0);
    BOOST_TEST(std::isfinite(sum));
    BOOST_CHECK_THROW(model.read<float>(experts + "gate_up_proj", gate_up, {5, 64, 64}), gf::file_error);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
