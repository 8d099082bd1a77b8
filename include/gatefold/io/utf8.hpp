// UTF-8 as the file formats need it: is this text well-formed, and how is a code point written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0 {
inline namespace GATEFOLD_TIER {

/// The length in bytes of the well-formed UTF-8 sequence `text` starts with; 0 if it starts with none.
///
/// Overlong forms, surrogates and code points above U+10FFFF are not well-formed.
constexpr std::size_t utf8_sequence(std::string_view text) {
    if (text.empty()) return 0;
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned first = byte(0);
    if (first < 0x80) return 1;
    if (first < 0xc2 || first > 0xf4) return 0;
    const std::size_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (text.size() < length) return 0;
    // Only the second byte has a range that depends on the first one.
    const unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    const unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (byte(1) < low || byte(1) > high) return 0;
    for (std::size_t i = 2; i < length; ++i)
        if ((byte(i) & 0xc0u) != 0x80u) return 0;
    return length;
}

/// Whether the whole of `text` is well-formed UTF-8.
constexpr bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        const std::size_t length = utf8_sequence(text);
        if (length == 0) return false;
        text.remove_prefix(length);
    }
    return true;
}

/// Writes the UTF-8 form of `code_point` (a Unicode scalar value) to `out`.
///
/// Returns: the number of bytes, 1 to 4.
constexpr std::size_t utf8_encode(std::uint32_t code_point, char (&out)[4]) {
    const auto tail = [&](int shift) { return static_cast<char>(0x80u | (code_point >> shift & 0x3fu)); };
    if (code_point < 0x80) {
        out[0] = static_cast<char>(code_point);
        return 1;
    }
    if (code_point < 0x800) {
        out[0] = static_cast<char>(0xc0u | code_point >> 6);
        out[1] = tail(0);
        return 2;
    }
    if (code_point < 0x10000) {
        out[0] = static_cast<char>(0xe0u | code_point >> 12);
        out[1] = tail(6);
        out[2] = tail(0);
        return 3;
    }
    out[0] = static_cast<char>(0xf0u | code_point >> 18);
    out[1] = tail(12);
    out[2] = tail(6);
    out[3] = tail(0);
    return 4;
}

}  // namespace GATEFOLD_TIER
}  // namespace gatefold::inline v0
