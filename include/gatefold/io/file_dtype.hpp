// Element types of checkpoint files, and the way from the bytes of a file to numbers in memory.
//
//     bytes (any alignment, any dtype) ── decode: exact ──> double or integer ── one rounding ──> float double bf16 f16
//     …
#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include <gatefold/core/dtype.hpp>
#include <gatefold/core/macros.hpp>
#include <gatefold/io/small_floats.hpp>

namespace gatefold::inline v0 {

static_assert(std::endian::native == std::endian::little,
              "gatefold: checkpoint files are little-endian, as is this code");

/// The element types of safetensors, in the order in which writers place tensors (the last type first in the file).
enum class file_dtype : std::uint8_t {
    boolean,
    f4,
    f6_e2m3,
    f6_e3m2,
    u8,
    i8,
    f8_e5m2,
    f8_e4m3,
    f8_e8m0,
    f8_e4m3fnuz,
    f8_e5m2fnuz,
    i16,
    u16,
    f16,
    bf16,
    i32,
    u32,
    f32,
    c64,
    f64,
    i64,
    u64
};

namespace detail {

struct file_dtype_row {
    const char* name;
    int bits;
};

inline constexpr file_dtype_row file_dtype_rows[] = {
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
    {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
    {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}};
static_assert(std::size(file_dtype_rows) == static_cast<std::size_t>(file_dtype::u64) + 1);

/// The integers that are numbers: neither bool nor characters.
template <class T>
inline constexpr bool is_plain_integer =
    std::is_integral_v<T> && !std::is_same_v<T, bool> && !std::is_same_v<T, char> && !std::is_same_v<T, wchar_t> &&
    !std::is_same_v<T, char8_t> && !std::is_same_v<T, char16_t> && !std::is_same_v<T, char32_t>;

template <class T>
constexpr int file_dtype_index() {
    if constexpr (std::is_same_v<T, bool>) return static_cast<int>(file_dtype::boolean);
    if constexpr (std::is_same_v<T, gatefold::bf16>) return static_cast<int>(file_dtype::bf16);
    if constexpr (std::is_same_v<T, gatefold::f16>) return static_cast<int>(file_dtype::f16);
    if constexpr (std::is_same_v<T, float>) return static_cast<int>(file_dtype::f32);
    if constexpr (std::is_same_v<T, double>) return static_cast<int>(file_dtype::f64);
    if constexpr (is_plain_integer<T>) {
        constexpr bool sign = std::is_signed_v<T>;
        constexpr file_dtype types[] = {
            sign ? file_dtype::i8 : file_dtype::u8, sign ? file_dtype::i16 : file_dtype::u16,
            sign ? file_dtype::i32 : file_dtype::u32, sign ? file_dtype::i64 : file_dtype::u64};
        return static_cast<int>(types[std::countr_zero(sizeof(T))]);
    }
    return -1;
}

}  // namespace detail

/// The name in the file: "F32".
GATEFOLD_INLINE constexpr const char* name_of(file_dtype type) {
    return detail::file_dtype_rows[static_cast<int>(type)].name;
}

/// The size of one element; 4 and 6 occur.
GATEFOLD_INLINE constexpr int bits_of(file_dtype type) { return detail::file_dtype_rows[static_cast<int>(type)].bits; }

/// The type of this name, if there is one.
GATEFOLD_INLINE constexpr std::optional<file_dtype> find_file_dtype(std::string_view name) {
    for (std::size_t i = 0; i < std::size(detail::file_dtype_rows); ++i)
        if (name == detail::file_dtype_rows[i].name) return static_cast<file_dtype>(i);
    return std::nullopt;
}

/// What can be read from and written to files: bool, the integers, bf16, f16, float, double.
template <class T>
concept storable = detail::file_dtype_index<std::remove_cv_t<T>>()
>= 0;

/// The type under which a T is stored.
template <storable T>
inline constexpr file_dtype file_dtype_of = static_cast<file_dtype>(detail::file_dtype_index<std::remove_cv_t<T>>());

/// Whether elements of this type can be read as T: numbers with a fraction as such, integers as integers, never across.
template <storable T>
constexpr bool readable_as(file_dtype type) {
    switch (type) {
        case file_dtype::f4:
        case file_dtype::f6_e2m3:
        case file_dtype::f6_e3m2:
        case file_dtype::c64:
            return false;
        case file_dtype::boolean:
        case file_dtype::u8:
        case file_dtype::i8:
        case file_dtype::i16:
        case file_dtype::u16:
        case file_dtype::i32:
        case file_dtype::u32:
        case file_dtype::i64:
        case file_dtype::u64:
            return std::is_integral_v<T> && (!std::is_same_v<T, bool> || type == file_dtype::boolean);
        default:
            return !std::is_integral_v<T>;
    }
}

namespace detail {
inline namespace GATEFOLD_TIER {

template <class Source>
Source load_unaligned(const std::byte* bytes) {
    Source value;
    std::memcpy(&value, bytes, sizeof value);
    return value;
}

/// Returns: how many leading elements fit T (all of them unless integers are out of its range).
template <class Source, class T>
std::size_t convert_from(const std::byte* bytes, std::span<T> out) {
    for (std::size_t i = 0; i < out.size(); ++i) {
        const Source value = load_unaligned<Source>(bytes + i * sizeof(Source));
        if constexpr (std::is_integral_v<T>) {
            if (!std::in_range<std::conditional_t<std::is_same_v<T, bool>, unsigned char, T>>(value)) return i;
            if constexpr (std::is_same_v<T, bool>)
                out[i] = value != 0;
            else
                out[i] = static_cast<T>(value);
        } else if constexpr (std::is_same_v<Source, double>)
            out[i] = static_cast<T>(value);
        else
            out[i] = static_cast<T>(static_cast<float>(value));
    }
    return out.size();
}

template <float (*Decode)(std::uint8_t), class T>
std::size_t convert_from_table(const std::byte* bytes, std::span<T> out) {
    for (std::size_t i = 0; i < out.size(); ++i)
        out[i] = static_cast<T>(small_float_table<Decode>[std::to_integer<std::size_t>(bytes[i])]);
    return out.size();
}

/// Converts `out.size()` elements; `readable_as<T>(type)` holds.
///
/// Returns: how many leading elements fit T (all of them unless integers are out of its range).
template <class T>
std::size_t convert_elements(file_dtype type, const std::byte* bytes, std::span<T> out) {
    if (type == file_dtype_of<T> && type != file_dtype::boolean) {
        if (!out.empty()) std::memcpy(out.data(), bytes, out.size_bytes());
        return out.size();
    }
    if constexpr (std::is_integral_v<T>) {
        switch (type) {
            case file_dtype::boolean:
            case file_dtype::u8:
                return convert_from<std::uint8_t>(bytes, out);
            case file_dtype::i8:
                return convert_from<std::int8_t>(bytes, out);
            case file_dtype::i16:
                return convert_from<std::int16_t>(bytes, out);
            case file_dtype::u16:
                return convert_from<std::uint16_t>(bytes, out);
            case file_dtype::i32:
                return convert_from<std::int32_t>(bytes, out);
            case file_dtype::u32:
                return convert_from<std::uint32_t>(bytes, out);
            case file_dtype::i64:
                return convert_from<std::int64_t>(bytes, out);
            case file_dtype::u64:
                return convert_from<std::uint64_t>(bytes, out);
            default:
                return 0;
        }
    } else {
        switch (type) {
            case file_dtype::f8_e5m2:
                return convert_from_table<decode_e5m2>(bytes, out);
            case file_dtype::f8_e4m3:
                return convert_from_table<decode_e4m3>(bytes, out);
            case file_dtype::f8_e8m0:
                return convert_from_table<decode_e8m0>(bytes, out);
            case file_dtype::f8_e4m3fnuz:
                return convert_from_table<decode_e4m3fnuz>(bytes, out);
            case file_dtype::f8_e5m2fnuz:
                return convert_from_table<decode_e5m2fnuz>(bytes, out);
            case file_dtype::f16:
                return convert_from<gatefold::f16>(bytes, out);
            case file_dtype::bf16:
                return convert_from<gatefold::bf16>(bytes, out);
            case file_dtype::f32:
                return convert_from<float>(bytes, out);
            case file_dtype::f64:
                return convert_from<double>(bytes, out);
            default:
                return 0;
        }
    }
}

}  // namespace GATEFOLD_TIER
}  // namespace detail
}  // namespace gatefold::inline v0
