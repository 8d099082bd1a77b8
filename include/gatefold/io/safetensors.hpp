// Reads safetensors files, written for files nobody can vouch for: nothing of a file is used before all of it is
// checked.
//
//     file ── header length, JSON, types, shapes, ranges ──> stored_tensor {name, type, shape, bytes} ── read ──>
//     numbers
//
// Tensors stay in the mapped file until they are read; the index takes a small multiple of the header.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gatefold/core/error.hpp>
#include <gatefold/core/index.hpp>
#include <gatefold/core/macros.hpp>
#include <gatefold/io/file.hpp>
#include <gatefold/io/file_dtype.hpp>
#include <gatefold/io/json.hpp>

namespace gatefold::inline v0 {

/// One tensor of a file: its bytes are row-major and may have any alignment.
struct stored_tensor {
    std::string name;
    file_dtype type;
    std::vector<index_t> shape;
    std::span<const std::byte> bytes;
};

/// The texts a file carries beside its tensors, sorted by key.
using file_metadata = std::vector<std::pair<std::string, std::string>>;

namespace detail {

struct safetensors_index {
    std::vector<stored_tensor> tensors;  // sorted by name
    file_metadata metadata;
};

inline namespace GATEFOLD_TIER {

/// The longest header a file may have.
inline constexpr std::uint64_t max_safetensors_header = 100'000'000;

inline std::string shape_text(std::span<const index_t> shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) {
        if (i == 16) return text + ", …]";
        text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
    }
    return text + "]";
}

[[noreturn]] inline void fail_tensor(std::string_view file, std::string_view tensor, const std::string& expected,
                                     const std::string& got) {
    GATEFOLD_THROW(
        file_error(std::string(file) + ": tensor " + in_quotes(tensor) + ": expected " + expected + ", got " + got));
}

/// Checks what can be said about one entry of the header without the others.
inline stored_tensor read_tensor_entry(std::string_view file, const json_member& entry,
                                       std::span<const std::byte> buffer) {
    const std::string_view name = entry.name;
    if (!entry.value.is(json_kind::object)) fail_tensor(file, name, "an object", entry.value.kind_name());
    json_value dtype, shape, offsets;
    for (const auto& [field, value] : entry.value.members()) {
        json_value* known = field == "dtype"          ? &dtype
                            : field == "shape"        ? &shape
                            : field == "data_offsets" ? &offsets
                                                      : nullptr;
        if (known == nullptr) continue;
        if (*known) fail_tensor(file, name, in_quotes(field) + " once", "it twice");
        *known = value;
    }
    if (!dtype.is(json_kind::string)) fail_tensor(file, name, "\"dtype\" to be a string", dtype.kind_name());
    if (!shape.is(json_kind::array)) fail_tensor(file, name, "\"shape\" to be an array", shape.kind_name());
    if (!offsets.is(json_kind::array)) fail_tensor(file, name, "\"data_offsets\" to be an array", offsets.kind_name());

    stored_tensor tensor;
    tensor.name = name;
    const auto type = find_file_dtype(dtype.string());
    if (!type) fail_tensor(file, name, "a dtype of safetensors", in_quotes(dtype.string()));
    tensor.type = *type;

    std::uint64_t bits = static_cast<std::uint64_t>(bits_of(*type));
    tensor.shape.reserve(shape.size());
    for (const json_value extent : shape.elements()) {
        const auto value = extent.signed_integer();
        if (!value || *value < 0) fail_tensor(file, name, "extents from 0 to 2^63-1 in \"shape\"", extent.kind_name());
        const auto factor = static_cast<std::uint64_t>(*value);
        if (factor != 0 && bits > (std::numeric_limits<std::uint64_t>::max)() / factor)
            fail_tensor(file, name, "a size below 2^64 bits", "a shape beyond it");
        bits *= factor;
        tensor.shape.push_back(*value);
    }
    if (bits % 8 != 0) fail_tensor(file, name, "whole bytes", std::to_string(bits) + " bits");

    std::uint64_t range[2] = {};
    if (offsets.size() != 2) fail_tensor(file, name, "two data_offsets", std::to_string(offsets.size()));
    std::size_t i = 0;
    for (const json_value offset : offsets.elements()) {
        const auto value = offset.unsigned_integer();
        if (!value) fail_tensor(file, name, "data_offsets from 0 to 2^64-1", offset.kind_name());
        range[i++] = *value;
    }
    const std::string got = std::to_string(range[0]) + " to " + std::to_string(range[1]);
    if (range[0] > range[1] || range[1] > buffer.size())
        fail_tensor(file, name, "data_offsets inside the " + std::to_string(buffer.size()) + " bytes of data", got);
    if (range[1] - range[0] != bits / 8)
        fail_tensor(file, name,
                    std::to_string(bits / 8) + " bytes (" + name_of(*type) + " " + shape_text(tensor.shape) + ")",
                    std::to_string(range[1] - range[0]));
    tensor.bytes = buffer.subspan(static_cast<std::size_t>(range[0]), static_cast<std::size_t>(range[1] - range[0]));
    return tensor;
}

inline file_metadata read_metadata_entry(std::string_view file, json_value entry) {
    file_metadata metadata;
    if (entry.is(json_kind::null)) return metadata;
    const auto check = [&](bool holds, const char* expected, json_value got) {
        if (!holds)
            GATEFOLD_THROW(file_error(std::string(file) + ": \"__metadata__\": expected " + expected + ", got " +
                                      got.kind_name()));
    };
    check(entry.is(json_kind::object), "an object", entry);
    for (const auto& [key, value] : entry.members()) {
        check(value.is(json_kind::string), "strings as values", value);
        metadata.emplace_back(key, value.string());
    }
    // Of two values for one key the last counts.
    std::reverse(metadata.begin(), metadata.end());
    const auto key_less = [](const auto& a, const auto& b) { return a.first < b.first; };
    const auto key_equal = [](const auto& a, const auto& b) { return a.first == b.first; };
    std::stable_sort(metadata.begin(), metadata.end(), key_less);
    metadata.erase(std::unique(metadata.begin(), metadata.end(), key_equal), metadata.end());
    return metadata;
}

/// Checks that the tensors cover the buffer: each begins where the one before ends.
inline void check_coverage(std::string_view file, std::span<const stored_tensor> tensors,
                           std::span<const std::byte> buffer) {
    std::vector<std::uint32_t> order(tensors.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::uint32_t>(i);
    std::sort(order.begin(), order.end(), [&](auto a, auto b) {
        const auto x = tensors[a].bytes, y = tensors[b].bytes;
        return std::pair(x.data(), x.size()) < std::pair(y.data(), y.size());
    });
    const std::byte* end = buffer.data();
    for (const auto i : order) {
        const std::byte* begin = tensors[i].bytes.data();
        if (begin != end)
            fail_tensor(file, tensors[i].name,
                        "to begin at data byte " + std::to_string(end - buffer.data()) + " (no hole, no overlap)",
                        std::to_string(begin - buffer.data()));
        end = begin + tensors[i].bytes.size();
    }
    const auto covered = static_cast<std::size_t>(end - buffer.data());
    if (covered != buffer.size())
        GATEFOLD_THROW(file_error(std::string(file) + ": expected " + std::to_string(covered) + " bytes of data, got " +
                                  std::to_string(buffer.size())));
}

inline safetensors_index read_safetensors_index(std::string_view file, std::span<const std::byte> bytes) {
    const auto fail = [&](const std::string& what) { GATEFOLD_THROW(file_error(std::string(file) + ": " + what)); };
    if (bytes.size() < 8) fail("expected 8 bytes of header length, got a file of " + std::to_string(bytes.size()));
    const auto length = load_unaligned<std::uint64_t>(bytes.data());
    if (length > max_safetensors_header)
        fail("expected a header of at most 100000000 bytes, got " + std::to_string(length));
    if (length > bytes.size() - 8)
        fail("expected a header of " + std::to_string(length) + " bytes, got a file with " +
             std::to_string(bytes.size() - 8));
    const auto header = bytes.subspan(8, static_cast<std::size_t>(length));
    const auto buffer = bytes.subspan(8 + header.size());

    // Names are checked below, where two equal metadata keys are no error.
    const std::string_view text(reinterpret_cast<const char*>(header.data()), header.size());
    const std::string source = std::string(file) + ": header";
    const json_document document = parse_json(text, source, {.duplicates = json_duplicates::accept});
    const json_value root = document.root();
    if (!root.is(json_kind::object)) fail("expected an object as header, got " + std::string(root.kind_name()));

    safetensors_index index;
    index.tensors.reserve(root.size());
    bool metadata = false;
    for (const json_member entry : root.members()) {
        if (entry.name == "__metadata__") {
            if (std::exchange(metadata, true)) fail("expected \"__metadata__\" once, got it twice");
            index.metadata = read_metadata_entry(file, entry.value);
        } else
            index.tensors.push_back(read_tensor_entry(file, entry, buffer));
    }
    std::sort(index.tensors.begin(), index.tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    for (std::size_t i = 1; i < index.tensors.size(); ++i)
        if (index.tensors[i - 1].name == index.tensors[i].name)
            fail_tensor(file, index.tensors[i].name, "one entry of this name", "two");
    check_coverage(file, index.tensors, buffer);
    return index;
}

/// Checks everything before the first element is written.
template <class T>
void read_stored_tensor(std::string_view file, const stored_tensor& tensor, std::span<T> out,
                        std::span<const index_t> shape) {
    if (!std::equal(shape.begin(), shape.end(), tensor.shape.begin(), tensor.shape.end()))
        fail_tensor(file, tensor.name, "shape " + shape_text(shape), shape_text(tensor.shape));
    if (!readable_as<T>(tensor.type))
        fail_tensor(file, tensor.name, std::string("a dtype that reads as ") + name_of(file_dtype_of<T>),
                    name_of(tensor.type));
    const std::uint64_t elements = tensor.bytes.size() * 8 / static_cast<std::uint64_t>(bits_of(tensor.type));
    require(out.size() == elements, "read", "out", elements, out.size());
    if constexpr (std::is_integral_v<T>) {
        // Integers may be out of range, which shows only on the way; T itself always fits.
        if (tensor.type != file_dtype_of<T>) {
            T probe[1];
            const auto size = static_cast<std::size_t>(bits_of(tensor.type) / 8);
            for (std::size_t i = 0; i < out.size(); ++i)
                if (convert_elements<T>(tensor.type, tensor.bytes.data() + i * size, probe) != 1)
                    fail_tensor(file, tensor.name, std::string("values that fit ") + name_of(file_dtype_of<T>),
                                "another at element " + std::to_string(i));
        }
    }
    convert_elements<T>(tensor.type, tensor.bytes.data(), out);
}

}  // namespace GATEFOLD_TIER
}  // namespace detail

/// A safetensors file, open for reading.
///
///     auto file = safetensors_file::open("model.safetensors");
///     std::vector<float> weight(64 * 32);
///     file.read<float>("mlp.gate.weight", weight, {64, 32});
class safetensors_file {
public:
    safetensors_file() = default;

    /// Throws: file_error with what is wrong, for anything but a well-formed file.
    GATEFOLD_INLINE static safetensors_file open(const std::string& path) { return from_bytes(open_file(path), path); }
    /// The same for a file in memory; `path` only names it in messages.
    GATEFOLD_INLINE static safetensors_file from_bytes(file_bytes bytes, std::string path = "safetensors") {
        safetensors_file file;
        file.index_ = detail::read_safetensors_index(path, bytes.bytes());
        file.path_ = std::move(path);
        file.bytes_ = std::move(bytes);
        return file;
    }

    GATEFOLD_INLINE const std::string& path() const { return path_; }
    /// All tensors, sorted by name.
    GATEFOLD_INLINE std::span<const stored_tensor> tensors() const { return index_.tensors; }
    /// All metadata, sorted by key.
    GATEFOLD_INLINE const file_metadata& metadata() const { return index_.metadata; }

    /// The tensor of this name, or null.
    GATEFOLD_INLINE const stored_tensor* find(std::string_view name) const {
        const auto place = std::lower_bound(index_.tensors.begin(), index_.tensors.end(), name,
                                            [](const stored_tensor& t, std::string_view n) { return t.name < n; });
        return place != index_.tensors.end() && place->name == name ? &*place : nullptr;
    }
    /// The metadata text of this key, or null.
    GATEFOLD_INLINE const std::string* find_metadata(std::string_view key) const {
        for (const auto& [name, text] : index_.metadata)
            if (name == key) return &text;
        return nullptr;
    }
    /// The tensor of this name; throws file_error if there is none.
    GATEFOLD_INLINE const stored_tensor& at(std::string_view name) const {
        const stored_tensor* tensor = find(name);
        if (tensor == nullptr) detail::fail_tensor(path_, name, "a tensor of this name", "none");
        return *tensor;
    }

    /// Reads a tensor as it is stored, converted to T (rounded to nearest even where T is narrower). Scales that other
    /// tensors hold are not applied: checkpoint::read does that.
    ///
    /// Shapes: out has exactly the elements of `shape`, `shape` is exactly that of the file.
    /// Throws: file_error naming file, tensor, expected and got; argument_error if out has another size. `out` is
    /// untouched.
    template <storable T>
    GATEFOLD_INLINE void read(std::string_view name, std::type_identity_t<std::span<T>> out,
                              std::span<const index_t> shape) const {
        detail::read_stored_tensor<T>(path_, at(name), out, shape);
    }
    template <storable T>
    GATEFOLD_INLINE void read(std::string_view name, std::type_identity_t<std::span<T>> out,
                              std::initializer_list<index_t> shape) const {
        detail::read_stored_tensor<T>(path_, at(name), out, std::span(shape.begin(), shape.size()));
    }

private:
    std::string path_;
    file_bytes bytes_;
    detail::safetensors_index index_;
};

}  // namespace gatefold::inline v0
