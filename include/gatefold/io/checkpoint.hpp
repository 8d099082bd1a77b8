// A checkpoint as one set of named tensors, whether it is one safetensors file or many shards, plain or quantised.
//
//     folder | file | index ──> safetensors_file… ──> name ──> read: stored numbers × their block scales ──> float
//     double bf16 f16
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/stat.h>

#include <gatefold/core/error.hpp>
#include <gatefold/core/index.hpp>
#include <gatefold/core/macros.hpp>
#include <gatefold/io/file.hpp>
#include <gatefold/io/json.hpp>
#include <gatefold/io/safetensors.hpp>
#include <gatefold/io/small_floats.hpp>

namespace gatefold::inline v0 {
namespace detail {

struct checkpoint_entry {
    const stored_tensor* tensor;
    std::size_t file;
};

struct checkpoint_parts {
    std::string path;
    std::vector<safetensors_file> files;
    std::vector<checkpoint_entry> entries;  // sorted by name
};

inline namespace GATEFOLD_TIER {

/// An index may name files of its own folder only: a checkpoint from elsewhere must not open anything else.
inline void check_shard_name(const std::string& index, std::string_view shard) {
    const bool plain = !shard.empty() && shard != "." && shard != ".." &&
                       shard.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
    if (!plain)
        GATEFOLD_THROW(
            file_error(index + ": expected the plain name of a file in the same folder, got " + in_quotes(shard)));
}

inline checkpoint_parts open_shards(const std::string& index) {
    const file_bytes bytes = open_file(index);
    const json_document document = parse_json(bytes.text(), index);
    const json_value map = document.root().find("weight_map");
    if (!map.is(json_kind::object))
        GATEFOLD_THROW(file_error(index + ": expected \"weight_map\" to be an object, got " + map.kind_name()));

    std::vector<std::string_view> shards;
    for (const auto& [name, shard] : map.members()) {
        if (!shard.is(json_kind::string)) fail_tensor(index, name, "the name of a file", shard.kind_name());
        shards.push_back(shard.string());
    }
    std::sort(shards.begin(), shards.end());
    shards.erase(std::unique(shards.begin(), shards.end()), shards.end());

    checkpoint_parts parts;
    const std::string folder = index.substr(0, index.rfind('/') + 1);
    for (const std::string_view shard : shards) {
        check_shard_name(index, shard);
        parts.files.push_back(safetensors_file::open(folder + std::string(shard)));
    }
    for (const auto& [name, shard] : map.members()) {
        const auto place = std::lower_bound(shards.begin(), shards.end(), shard.string());
        const auto file = static_cast<std::size_t>(place - shards.begin());
        const stored_tensor* tensor = parts.files[file].find(name);
        if (tensor == nullptr) fail_tensor(index, name, "it in " + parts.files[file].path(), "no such tensor there");
        parts.entries.push_back({tensor, file});
    }
    return parts;
}

inline checkpoint_parts open_checkpoint(const std::string& path) {
    const auto is_folder = [](const std::string& p) {
        struct stat info;
        return ::stat(p.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
    };
    const auto exists = [](const std::string& p) {
        struct stat info;
        return ::stat(p.c_str(), &info) == 0;
    };
    std::string file = path;
    if (is_folder(path)) {
        file += "/model.safetensors";
        if (!exists(file)) file += ".index.json";
        if (!exists(file))
            GATEFOLD_THROW(
                file_error(path + ": expected model.safetensors or model.safetensors.index.json, got neither"));
    }
    checkpoint_parts parts;
    if (file.ends_with(".json"))
        parts = open_shards(file);
    else {
        parts.files.push_back(safetensors_file::open(file));
        for (const stored_tensor& tensor : parts.files[0].tensors()) parts.entries.push_back({&tensor, 0});
    }
    parts.path = file;
    std::sort(parts.entries.begin(), parts.entries.end(),
              [](const auto& a, const auto& b) { return a.tensor->name < b.tensor->name; });
    return parts;
}

inline const checkpoint_entry* find_entry(const checkpoint_parts& parts, std::string_view name) {
    const auto place = std::lower_bound(parts.entries.begin(), parts.entries.end(), name,
                                        [](const auto& entry, std::string_view n) { return entry.tensor->name < n; });
    return place != parts.entries.end() && place->tensor->name == name ? &*place : nullptr;
}

/// The tensor at `entry` in float, of exactly this shape.
inline std::vector<float> read_scales(const checkpoint_parts& parts, const checkpoint_entry& entry,
                                      std::span<const index_t> shape) {
    const std::uint64_t bits = static_cast<std::uint64_t>(bits_of(entry.tensor->type));
    std::vector<float> scales(entry.tensor->bytes.size() * 8 / bits);
    read_stored_tensor<float>(parts.files[entry.file].path(), *entry.tensor, scales, shape);
    return scales;
}

/// value = code · scale of its 128 × 128 block, one float product, as the reference decodes.
template <class T>
void read_block_scaled(const checkpoint_parts& parts, const checkpoint_entry& entry, const checkpoint_entry& scale,
                       std::span<T> out, std::span<const index_t> shape) {
    constexpr index_t block = 128;
    const stored_tensor& tensor = *entry.tensor;
    const std::string& path = parts.files[entry.file].path();
    if (!std::equal(shape.begin(), shape.end(), tensor.shape.begin(), tensor.shape.end()))
        fail_tensor(path, tensor.name, "shape " + shape_text(shape), shape_text(tensor.shape));
    if (shape.size() < 2) fail_tensor(path, tensor.name, "a matrix, as it has block scales", shape_text(shape));
    require(out.size() == tensor.bytes.size(), "checkpoint::read", "out", tensor.bytes.size(), out.size());

    std::vector<index_t> scale_shape(shape.begin(), shape.end());
    const index_t rows = shape[shape.size() - 2], columns = shape.back();
    const index_t down = scale_shape[shape.size() - 2] = ceil_div(rows, block);
    const index_t across = scale_shape.back() = ceil_div(columns, block);
    const std::vector<float> scales = read_scales(parts, scale, scale_shape);

    std::vector<float> row(static_cast<std::size_t>(columns));
    const index_t all_rows = columns == 0 ? 0 : static_cast<index_t>(out.size()) / columns;
    for (index_t r = 0; r < all_rows; ++r) {
        const auto first = static_cast<std::size_t>(r * columns);
        convert_elements<float>(tensor.type, tensor.bytes.data() + first, row);
        const auto row_scales = static_cast<std::size_t>((r / rows * down + r % rows / block) * across);
        for (std::size_t c = 0; c < row.size(); ++c)
            out[first + c] = static_cast<T>(row[c] * scales[row_scales + c / static_cast<std::size_t>(block)]);
    }
}

template <class T>
void read_checkpoint_tensor(const checkpoint_parts& parts, std::string_view name, std::span<T> out,
                            std::span<const index_t> shape) {
    const checkpoint_entry* entry = find_entry(parts, name);
    if (entry == nullptr) {
        const bool mxfp4 = find_entry(parts, std::string(name) + "_blocks") != nullptr;
        fail_tensor(parts.path, name, "a tensor of this name", mxfp4 ? "only MXFP4 blocks (see read_mxfp4)" : "none");
    }
    const std::string& path = parts.files[entry->file].path();
    const file_dtype type = entry->tensor->type;
    const bool coded = bits_of(type) == 8 && readable_as<float>(type) && type != file_dtype::f8_e8m0;
    if (!coded || !readable_as<T>(type)) return read_stored_tensor<T>(path, *entry->tensor, out, shape);
    // An 8-bit weight without its scale would be read as plausible numbers that are all wrong.
    const std::string scale_name = std::string(name) + "_scale_inv";
    const checkpoint_entry* scale = find_entry(parts, scale_name);
    if (scale == nullptr) fail_tensor(path, name, "its scales in " + in_quotes(scale_name), "no such tensor");
    if constexpr (!std::is_integral_v<T>) read_block_scaled<T>(parts, *entry, *scale, out, shape);
}

struct mxfp4_pair {
    const checkpoint_entry *blocks = nullptr, *scales = nullptr;
};

inline mxfp4_pair find_mxfp4(const checkpoint_parts& parts, std::string_view name) {
    const std::string base(name);
    for (const char* separator : {"_", "."})
        if (const checkpoint_entry* blocks = find_entry(parts, base + separator + "blocks"))
            if (const checkpoint_entry* scales = find_entry(parts, base + separator + "scales"))
                return {blocks, scales};
    return {};
}

template <class T>
void read_checkpoint_mxfp4(const checkpoint_parts& parts, std::string_view name, std::span<T> out,
                           std::span<const index_t> shape) {
    const mxfp4_pair found = find_mxfp4(parts, name);
    if (found.blocks == nullptr) fail_tensor(parts.path, name, "MXFP4 blocks and scales of this name", "none");
    const std::string& path = parts.files[found.blocks->file].path();
    const stored_tensor &blocks = *found.blocks->tensor, &scales = *found.scales->tensor;
    if (shape.empty() || shape.back() % 32 != 0)
        fail_tensor(path, name, "rows of whole blocks of 32", shape_text(shape));
    std::vector<index_t> stored(shape.begin(), shape.end());
    stored.back() /= 32;
    const auto check = [&](const stored_tensor& tensor) {
        if (tensor.type != file_dtype::u8) fail_tensor(path, tensor.name, "U8", name_of(tensor.type));
        if (tensor.shape != stored)
            fail_tensor(path, tensor.name, "shape " + shape_text(stored), shape_text(tensor.shape));
    };
    check(scales);
    stored.push_back(16);
    check(blocks);
    require(out.size() == scales.bytes.size() * 32, "checkpoint::read_mxfp4", "out", scales.bytes.size() * 32,
            out.size());
    for (std::size_t block = 0; block < scales.bytes.size(); ++block) {
        float values[32];
        decode_mxfp4(blocks.bytes.subspan(block * 16, 16), scales.bytes.subspan(block, 1), values);
        for (std::size_t i = 0; i < 32; ++i) out[block * 32 + i] = static_cast<T>(values[i]);
    }
}

}  // namespace GATEFOLD_TIER
}  // namespace detail

/// A checkpoint of the hub, open for reading; all its tensors under one roof.
///
///     auto model = checkpoint::open("models/qwen3_moe");     // a folder, a .safetensors file, or an index of shards
///     model.read<bf16>("model.layers.0.mlp.gate.weight", gate, {16, 64});
class checkpoint {
public:
    /// Opens `path` and checks all its files. A folder holds model.safetensors or model.safetensors.index.json.
    ///
    /// Throws: file_error naming the file and what is wrong with it. An index may only name files of its own folder.
    GATEFOLD_INLINE static checkpoint open(const std::string& path) {
        checkpoint result;
        result.parts_ = detail::open_checkpoint(path);
        return result;
    }

    GATEFOLD_INLINE std::span<const safetensors_file> files() const { return parts_.files; }
    /// The number of tensors, and the one at a place of the order by name.
    GATEFOLD_INLINE std::size_t size() const { return parts_.entries.size(); }
    GATEFOLD_INLINE const stored_tensor& operator[](std::size_t i) const { return *parts_.entries[i].tensor; }
    /// The tensor of this name, or null.
    GATEFOLD_INLINE const stored_tensor* find(std::string_view name) const {
        const detail::checkpoint_entry* entry = detail::find_entry(parts_, name);
        return entry == nullptr ? nullptr : entry->tensor;
    }
    /// Whether MXFP4 blocks and scales of this name are there ("…gate_up_proj" for "…gate_up_proj_blocks").
    GATEFOLD_INLINE bool has_mxfp4(std::string_view name) const {
        return detail::find_mxfp4(parts_, name).blocks != nullptr;
    }

    /// Reads a tensor as numbers of type T: converted (rounded to nearest even where T is narrower), and FP8 weights
    /// multiplied by NAME_scale_inv, the scales of their 128 × 128 blocks; FP8 without scales is refused.
    ///
    /// Shapes: out has exactly the elements of `shape`, `shape` is exactly that of the file.
    /// Throws: file_error naming file, tensor, expected and got; argument_error if out has another size. `out` is
    /// untouched.
    template <storable T>
    GATEFOLD_INLINE void read(std::string_view name, std::type_identity_t<std::span<T>> out,
                              std::span<const index_t> shape) const {
        detail::read_checkpoint_tensor<T>(parts_, name, out, shape);
    }
    template <storable T>
    GATEFOLD_INLINE void read(std::string_view name, std::type_identity_t<std::span<T>> out,
                              std::initializer_list<index_t> shape) const {
        detail::read_checkpoint_tensor<T>(parts_, name, out, std::span(shape.begin(), shape.size()));
    }

    /// Reads NAME_blocks and NAME_scales (or NAME.blocks, NAME.scales) of an MXFP4 weight, decoded.
    ///
    /// Shapes: `shape` is [.., rows, inputs], the order the blocks are stored in; for gpt-oss that is [E, 2F, H] and
    ///         [E, H, F], the transpose of its unquantised tensors. Stored are [.., rows, inputs / 32, 16] and [..,
    ///         inputs / 32].
    /// Throws: as read.
    template <scalar T>
    GATEFOLD_INLINE void read_mxfp4(std::string_view name, std::type_identity_t<std::span<T>> out,
                                    std::span<const index_t> shape) const {
        detail::read_checkpoint_mxfp4<T>(parts_, name, out, shape);
    }
    template <scalar T>
    GATEFOLD_INLINE void read_mxfp4(std::string_view name, std::type_identity_t<std::span<T>> out,
                                    std::initializer_list<index_t> shape) const {
        detail::read_checkpoint_mxfp4<T>(parts_, name, out, std::span(shape.begin(), shape.size()));
    }

private:
    detail::checkpoint_parts parts_;
};

}  // namespace gatefold::inline v0
