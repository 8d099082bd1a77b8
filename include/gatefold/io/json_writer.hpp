// Writes JSON piece by piece: headers of checkpoints, indices of shards, figures for other programs.
#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include <gatefold/core/error.hpp>
#include <gatefold/core/macros.hpp>
#include <gatefold/io/utf8.hpp>

namespace gatefold::inline v0 {
namespace detail {

template <class N>
concept json_number = std::is_arithmetic_v<N> && !std::is_same_v<N, char>;

inline namespace GATEFOLD_TIER {

/// Appends `text` as a JSON string; what is not UTF-8 becomes U+FFFD, so that the result always is.
inline void append_json_string(std::string& out, std::string_view text) {
    constexpr char hexadecimal[] = "0123456789abcdef";
    out += '"';
    while (!text.empty()) {
        const std::size_t length = utf8_sequence(text);
        const char c = text[0];
        if (length == 0)
            out += "\xef\xbf\xbd";
        else if (length > 1)
            out += text.substr(0, length);
        else if (c == '"' || c == '\\')
            (out += '\\') += c;
        else if (static_cast<unsigned char>(c) >= 0x20)
            out += c;
        else if (const std::size_t known = std::string_view("\b\f\n\r\t").find(c); known != std::string_view::npos)
            (out += '\\') += "bfnrt"[known];
        else
            ((out += "\\u00") += hexadecimal[c >> 4 & 15]) += hexadecimal[c & 15];
        text.remove_prefix(length == 0 ? 1 : length);
    }
    out += '"';
}

/// Appends the shortest text that reads back as the same number; JSON has no NaN and no infinity: null.
template <class N>
void append_json_number(std::string& out, N number) {
    if constexpr (std::is_floating_point_v<N>)
        if (!std::isfinite(number)) {
            out += "null";
            return;
        }
    char text[40];
    out.append(text, std::to_chars(text, text + sizeof text, number).ptr);
}

}  // namespace GATEFOLD_TIER
}  // namespace detail

/// Builds one JSON text; commas and line breaks are set by the writer.
///
///     json_writer w(2);                                              // 2 spaces per level; 0: all in one line
///     w.begin_object().key("loss").value(1.5).key("ids").begin_array().value(3).end_array().end_object();
///     w.text();
class json_writer {
public:
    GATEFOLD_INLINE explicit json_writer(int indent = 0) : indent_(indent) {}

    GATEFOLD_INLINE json_writer& begin_object() { return open('{', '}'); }
    GATEFOLD_INLINE json_writer& end_object() { return close('}'); }
    GATEFOLD_INLINE json_writer& begin_array() { return open('[', ']'); }
    GATEFOLD_INLINE json_writer& end_array() { return close(']'); }

    GATEFOLD_INLINE json_writer& key(std::string_view name) {
        require(!open_.empty() && open_.back() == '}' && !after_key_, "json_writer::key", "call", "inside an object",
                "elsewhere");
        separate();
        detail::append_json_string(text_, name);
        text_ += indent_ > 0 ? ": " : ":";
        after_key_ = true;
        return *this;
    }

    GATEFOLD_INLINE json_writer& value(std::string_view text) {
        before_value();
        detail::append_json_string(text_, text);
        return *this;
    }
    GATEFOLD_INLINE json_writer& value(const char* text) { return value(std::string_view(text)); }
    template <detail::json_number N>
    GATEFOLD_INLINE json_writer& value(N number) {
        before_value();
        if constexpr (std::is_same_v<N, bool>)
            text_ += number ? "true" : "false";
        else
            detail::append_json_number(text_, number);
        return *this;
    }
    GATEFOLD_INLINE json_writer& null() {
        before_value();
        text_ += "null";
        return *this;
    }
    /// key and value in one.
    template <class V>
    GATEFOLD_INLINE json_writer& member(std::string_view name, V v) {
        return key(name).value(v);
    }

    /// What is written; complete once every object and array is closed.
    GATEFOLD_INLINE const std::string& text() const {
        require(open_.empty() && !text_.empty(), "json_writer::text", "call", "a complete value", "an open one");
        return text_;
    }

private:
    GATEFOLD_INLINE void line() {
        if (indent_ <= 0) return;
        text_ += '\n';
        text_.append(open_.size() * static_cast<std::size_t>(indent_), ' ');
    }
    GATEFOLD_INLINE void separate() {
        if (!first_) text_ += ',';
        if (!open_.empty()) line();
        first_ = false;
    }
    GATEFOLD_INLINE void before_value() {
        const bool fits = after_key_ || (open_.empty() ? text_.empty() : open_.back() == ']');
        require(fits, "json_writer::value", "call", "after key, inside an array, or first", "elsewhere");
        if (!after_key_) separate();
        after_key_ = false;
    }
    GATEFOLD_INLINE json_writer& open(char begin, char end) {
        before_value();
        text_ += begin;
        open_ += end;
        first_ = true;
        return *this;
    }
    GATEFOLD_INLINE json_writer& close(char end) {
        require(!open_.empty() && open_.back() == end && !after_key_, "json_writer::end", "call",
                "to close what was opened last", std::string(1, end));
        open_.pop_back();
        if (!first_) line();
        text_ += end;
        first_ = false;
        return *this;
    }

    std::string text_, open_;  // open_: the closing brackets that are still to come
    int indent_;
    bool first_ = true, after_key_ = false;
};

}  // namespace gatefold::inline v0
