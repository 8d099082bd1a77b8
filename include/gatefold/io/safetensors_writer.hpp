// Writes safetensors files: the same tensors give the same bytes, whatever the order they were added in, and the file
// on disk is replaced as a whole or not at all.
//
//     tensors ── sort: widest type first, then by name ──> header (padded to 8) ── atomic_file ──> file
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <gatefold/core/error.hpp>
#include <gatefold/core/index.hpp>
#include <gatefold/core/macros.hpp>
#include <gatefold/io/file.hpp>
#include <gatefold/io/file_dtype.hpp>
#include <gatefold/io/json_writer.hpp>
#include <gatefold/io/safetensors.hpp>
#include <gatefold/io/utf8.hpp>

namespace gatefold::inline v0 {
namespace detail {
inline namespace GATEFOLD_TIER {

inline stored_tensor make_stored_tensor(std::string_view name, file_dtype type, std::span<const std::byte> bytes,
                                        std::span<const index_t> shape) {
    constexpr const char* function = "safetensors_writer::add";
    require(is_utf8(name) && name != "__metadata__", function, "name", "UTF-8 other than \"__metadata__\"",
            in_quotes(name));
    auto bits = static_cast<std::uint64_t>(bits_of(type));
    for (const index_t extent : shape) {
        require(extent >= 0, function, "shape", "extents of 0 or more", shape_text(shape));
        const auto factor = static_cast<std::uint64_t>(extent);
        require(factor == 0 || bits <= (std::numeric_limits<std::uint64_t>::max)() / factor, function, "shape",
                "less than 2^64 bits", shape_text(shape));
        bits *= factor;
    }
    require(bits % 8 == 0, function, "shape", "whole bytes", shape_text(shape));
    require(bytes.size() == bits / 8, function, "data",
            std::to_string(bits / 8) + " bytes for " + in_quotes(name) + " " + shape_text(shape), bytes.size());
    return {std::string(name), type, {shape.begin(), shape.end()}, bytes};
}

/// The first 8 + N bytes of the file; sorts `tensors` and `metadata` into file order.
inline std::string make_safetensors_header(std::vector<stored_tensor>& tensors, file_metadata& metadata) {
    constexpr const char* function = "safetensors_writer::write";
    // Descending by type is descending by alignment: every tensor of a file that is mapped is aligned.
    std::sort(tensors.begin(), tensors.end(),
              [](const auto& a, const auto& b) { return a.type != b.type ? a.type > b.type : a.name < b.name; });
    std::vector<std::string_view> names;
    names.reserve(tensors.size());
    for (const auto& tensor : tensors) names.push_back(tensor.name);
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    require(twice == names.end(), function, "tensors", "every name once",
            twice == names.end() ? "" : in_quotes(*twice));
    std::sort(metadata.begin(), metadata.end());
    for (std::size_t i = 0; i < metadata.size(); ++i) {
        const auto& [key, text] = metadata[i];
        require(is_utf8(key) && is_utf8(text), function, "metadata", "UTF-8", in_quotes(key));
        require(i == 0 || metadata[i - 1].first != key, function, "metadata", "every key once", in_quotes(key));
    }

    json_writer json;
    json.begin_object();
    if (!metadata.empty()) {
        json.key("__metadata__").begin_object();
        for (const auto& [key, text] : metadata) json.key(key).value(std::string_view(text));
        json.end_object();
    }
    std::uint64_t end = 0;
    for (const auto& tensor : tensors) {
        const std::uint64_t begin = end;
        end += tensor.bytes.size();
        json.key(tensor.name).begin_object().member("dtype", name_of(tensor.type)).key("shape").begin_array();
        for (const index_t extent : tensor.shape) json.value(extent);
        json.end_array().key("data_offsets").begin_array().value(begin).value(end).end_array().end_object();
    }
    json.end_object();
    const std::uint64_t length = round_up<std::uint64_t>(json.text().size(), 8);
    require(length <= max_safetensors_header, function, "tensors", "a header of at most 100000000 bytes", length);
    std::string header(8, '\0');
    std::memcpy(header.data(), &length, 8);
    return (header += json.text()).append(length - json.text().size(), ' ');
}

}  // namespace GATEFOLD_TIER
}  // namespace detail

/// Collects tensors and writes them as one file. The data is not copied: it must live, unchanged, until it is written.
///
///     safetensors_writer writer;
///     writer.add("mlp.gate.weight", std::span<const float>(gate), {8, 64});
///     writer.write("model.safetensors", {{"format", "pt"}});
class safetensors_writer {
public:
    /// Throws: argument_error unless the name is UTF-8 (and not "__metadata__") and the data has exactly this shape.
    GATEFOLD_INLINE void add(std::string_view name, file_dtype type, std::span<const std::byte> bytes,
                             std::span<const index_t> shape) {
        tensors_.push_back(detail::make_stored_tensor(name, type, bytes, shape));
    }
    template <storable T, std::size_t N>
    GATEFOLD_INLINE void add(std::string_view name, std::span<T, N> data, std::span<const index_t> shape) {
        add(name, file_dtype_of<T>, std::as_bytes(data), shape);
    }
    template <storable T, std::size_t N>
    GATEFOLD_INLINE void add(std::string_view name, std::span<T, N> data, std::initializer_list<index_t> shape) {
        add(name, file_dtype_of<T>, std::as_bytes(data), std::span(shape.begin(), shape.size()));
    }

    /// Replaces the file `path`.
    ///
    /// Throws: argument_error if a name or a metadata key stands twice or is not UTF-8; file_error naming the file and
    /// the
    ///         system's reason. The old file is untouched then.
    GATEFOLD_INLINE void write(const std::string& path, file_metadata metadata = {}) const {
        auto tensors = tensors_;
        const std::string header = detail::make_safetensors_header(tensors, metadata);
        atomic_file file(path);
        file.append(header);
        for (const stored_tensor& tensor : tensors) file.append(tensor.bytes);
        file.commit();
    }
    /// The bytes write() would write.
    GATEFOLD_INLINE std::vector<std::byte> serialise(file_metadata metadata = {}) const {
        auto tensors = tensors_;
        const std::string header = detail::make_safetensors_header(tensors, metadata);
        const auto head = std::as_bytes(std::span(header));
        std::vector<std::byte> all(head.begin(), head.end());
        for (const stored_tensor& tensor : tensors) all.insert(all.end(), tensor.bytes.begin(), tensor.bytes.end());
        return all;
    }

private:
    std::vector<stored_tensor> tensors_;
};

}  // namespace gatefold::inline v0
