// A strict JSON reader (RFC 8259) for the headers and indices of checkpoints, written for files nobody can vouch for.
//
//     text ── pass 1: check, count the values ──> ── pass 2: store ──> nodes[count] in reading order ──> json_value
//
// One node of 16 bytes per value and a copy of the text: a text of n bytes needs at most 9 n bytes, malformed text
// none.
#pragma once

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include <gatefold/core/error.hpp>
#include <gatefold/core/macros.hpp>
#include <gatefold/io/json_value.hpp>
#include <gatefold/io/utf8.hpp>

namespace gatefold::inline v0 {

/// What a name that stands twice in one object means: an error, or the last one counts.
enum class json_duplicates : std::uint8_t { reject, accept };

struct json_options {
    json_duplicates duplicates = json_duplicates::reject;
    int max_depth = 128;
};

namespace detail {
inline namespace GATEFOLD_TIER {

/// `text` in quotes for a message: control characters escaped, long ones cut.
inline std::string in_quotes(std::string_view text) {
    std::string result = "\"";
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (i == 160) return result + "…\"";
        const auto byte = static_cast<unsigned char>(text[i]);
        if (byte < 0x20 || byte == 0x7f) {
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(byte));
            result += escape;
        } else {
            if (byte == '"' || byte == '\\') result += '\\';
            result += text[i];
        }
    }
    return result + "\"";
}

/// A name that stands twice in `object`, or null.
///
/// The scratch holds four bytes per member.
inline const json_node* duplicate_name(const json_node* object, const char* text) {
    const auto name = [&](std::uint32_t offset) {
        return std::string_view(text + object[offset].payload, object[offset].size);
    };
    std::vector<std::uint32_t> offsets;
    offsets.reserve(object->size);
    for (std::uint64_t offset = 1; offset < object->payload; offset += 1 + json_extent(object[offset + 1]))
        offsets.push_back(static_cast<std::uint32_t>(offset));
    std::sort(offsets.begin(), offsets.end(), [&](auto a, auto b) { return name(a) < name(b); });
    for (std::size_t i = 1; i < offsets.size(); ++i)
        if (name(offsets[i - 1]) == name(offsets[i])) return object + offsets[i];
    return nullptr;
}

/// Both passes: without `nodes` it checks and counts, with them it stores, and decodes strings where they stand (a
/// decoded string is never longer than its escaped form, and is only read again as a string).
template <bool Store>
class json_parser {
public:
    using text_pointer = std::conditional_t<Store, char*, const char*>;

    json_parser(text_pointer text, std::size_t size, std::string_view source, const json_options& options,
                json_node* nodes = nullptr)
        : text_(text), size_(size), source_(source), options_(options), nodes_(nodes) {}

    /// Returns: the number of nodes.
    std::uint64_t parse() {
        space();
        value(0);
        space();
        if (at_ != size_) unexpected("the end of the text");
        return count_;
    }

private:
    [[noreturn]] void fail(std::size_t at, const std::string& what) const {
        GATEFOLD_THROW(file_error(std::string(source_) + ": byte " + std::to_string(at) + ": " + what));
    }
    [[noreturn]] void unexpected(const char* expected) const {
        std::string got = "the end of the text";
        if (at_ < size_) {
            char byte[16];
            const auto c = static_cast<unsigned char>(text_[at_]);
            std::snprintf(byte, sizeof byte, c > 0x20 && c < 0x7f ? "'%c'" : "byte 0x%02x", static_cast<unsigned>(c));
            got = byte;
        }
        fail(at_, std::string("expected ") + expected + ", got " + got);
    }

    unsigned char peek() const { return at_ < size_ ? static_cast<unsigned char>(text_[at_]) : 0; }
    bool digit() const { return at_ < size_ && text_[at_] >= '0' && text_[at_] <= '9'; }
    bool accept(char c) {
        if (at_ == size_ || text_[at_] != c) return false;
        ++at_;
        return true;
    }
    void space() {
        while (at_ < size_ && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
            ++at_;
    }

    std::uint64_t add(json_kind kind, std::uint64_t payload, std::uint32_t size = 0) {
        if constexpr (Store) nodes_[count_] = {kind, size, payload};
        return count_++;
    }
    void close(std::uint64_t container, std::uint32_t size) {
        if constexpr (Store) {
            nodes_[container].size = size;
            nodes_[container].payload = count_ - container;
        }
    }

    void value(int depth) {
        if (depth > options_.max_depth) fail(at_, "more than " + std::to_string(options_.max_depth) + " levels deep");
        switch (peek()) {
            case '{':
                return object(depth);
            case '[':
                return array(depth);
            case '"':
                return string();
            case 't':
                return word("true", json_kind::boolean, 1);
            case 'f':
                return word("false", json_kind::boolean, 0);
            case 'n':
                return word("null", json_kind::null, 0);
            default:
                return number();
        }
    }

    void word(std::string_view text, json_kind kind, std::uint64_t payload) {
        if (std::string_view(text_ + at_, size_ - at_).substr(0, text.size()) != text) unexpected("a value");
        at_ += text.size();
        add(kind, payload);
    }

    void array(int depth) {
        const std::uint64_t container = add(json_kind::array, 0);
        std::uint32_t size = 0;
        ++at_;
        space();
        if (!accept(']')) {
            do {
                space();
                value(depth + 1);
                ++size;
                space();
            } while (accept(','));
            if (!accept(']')) unexpected("',' or ']'");
        }
        close(container, size);
    }

    void object(int depth) {
        const std::size_t begin = at_;
        const std::uint64_t container = add(json_kind::object, 0);
        std::uint32_t size = 0;
        ++at_;
        space();
        if (!accept('}')) {
            do {
                space();
                if (peek() != '"') unexpected("a name in quotes");
                string();
                space();
                if (!accept(':')) unexpected("':'");
                space();
                value(depth + 1);
                ++size;
                space();
            } while (accept(','));
            if (!accept('}')) unexpected("',' or '}'");
        }
        close(container, size);
        if constexpr (Store)
            if (options_.duplicates == json_duplicates::reject)
                if (const json_node* twice = duplicate_name(nodes_ + container, text_))
                    fail(begin, "the name " + in_quotes({text_ + twice->payload, twice->size}) +
                                    " stands twice in this object");
    }

    void number() {
        const std::size_t begin = at_;
        const bool minus = accept('-');
        bool integer = true;
        if (!digit()) unexpected(minus ? "a digit" : "a value");
        if (!accept('0'))
            while (digit()) ++at_;
        if (accept('.')) {
            integer = false;
            if (!digit()) unexpected("a digit");
            while (digit()) ++at_;
        }
        if (peek() == 'e' || peek() == 'E') {
            integer = false;
            ++at_;
            if (!accept('+')) accept('-');
            if (!digit()) unexpected("a digit");
            while (digit()) ++at_;
        }
        if (integer) {
            std::uint64_t magnitude = 0;
            const auto parsed = std::from_chars(text_ + begin + (minus ? 1 : 0), text_ + at_, magnitude);
            if (parsed.ec == std::errc{} && !minus) return void(add(json_kind::integer, magnitude));
            if (parsed.ec == std::errc{} && magnitude == 0) return void(add(json_kind::integer, 0));
            if (parsed.ec == std::errc{} && magnitude <= std::uint64_t{1} << 63)
                return void(add(json_kind::negative, std::uint64_t{0} - magnitude));
        }
        double real = 0;
        const auto parsed = std::from_chars(text_ + begin, text_ + at_, real);
        if (parsed.ec != std::errc{}) {
            if (!below_one(begin)) fail(begin, "a number beyond the range of double");
            real = minus ? -0.0 : 0.0;
        }
        add(json_kind::real, std::bit_cast<std::uint64_t>(real));
    }

    /// Whether the out-of-range number at `begin` is too small (rather than too large) for a double: the sign of the
    /// decimal exponent of its first digit that is not zero.
    bool below_one(std::size_t begin) const {
        std::int64_t exponent = -1;
        bool point = false, significant = false;
        std::size_t i = begin + (text_[begin] == '-' ? 1 : 0);
        for (; i < at_ && text_[i] != 'e' && text_[i] != 'E'; ++i) {
            if (text_[i] == '.') {
                point = true;
                continue;
            }
            significant = significant || text_[i] != '0';
            if (!point && significant) ++exponent;
            if (point && !significant) --exponent;
        }
        if (!significant) return true;
        if (i == at_) return exponent < 0;
        const bool negative = text_[i + 1] == '-';
        i += negative || text_[i + 1] == '+' ? 2 : 1;
        std::int64_t written = 0;
        for (; i < at_; ++i)
            if (written < std::int64_t{1} << 40) written = written * 10 + (text_[i] - '0');
        return exponent + (negative ? -written : written) < 0;
    }

    unsigned hex4() {
        unsigned code = 0;
        for (int i = 0; i < 4; ++i, ++at_) {
            const unsigned char c = peek(), lower = c | 0x20u;
            if (c >= '0' && c <= '9')
                code = code << 4 | (c - unsigned{'0'});
            else if (lower >= 'a' && lower <= 'f')
                code = code << 4 | (lower - unsigned{'a'} + 10u);
            else
                unexpected("a hexadecimal digit");
        }
        return code;
    }

    /// The code point after "\u"; a pair of surrogates is one.
    std::uint32_t unicode_escape(std::size_t begin) {
        const unsigned first = hex4();
        if (first < 0xd800 || first > 0xdfff) return first;
        if (first > 0xdbff || !accept('\\') || !accept('u')) fail(begin, "half of a surrogate pair");
        const unsigned second = hex4();
        if (second < 0xdc00 || second > 0xdfff) fail(begin, "half of a surrogate pair");
        return 0x10000u + ((first - 0xd800u) << 10) + (second - 0xdc00u);
    }

    void string() {
        const std::size_t begin = ++at_;
        std::size_t length = 0;
        const auto put = [&](const char* from, std::size_t n) {
            if constexpr (Store)
                for (std::size_t i = 0; i < n; ++i) text_[begin + length + i] = from[i];
            length += n;
        };
        while (!accept('"')) {
            if (at_ == size_) unexpected("'\"'");
            const auto byte = static_cast<unsigned char>(text_[at_]);
            if (byte < 0x20) unexpected("a string without control characters");
            if (byte == '\\') {
                const std::size_t escape = at_++;
                const char code = static_cast<char>(peek());
                const std::size_t known =
                    at_ < size_ ? std::string_view("\"\\/bfnrtu").find(code) : std::string_view::npos;
                if (known == std::string_view::npos) unexpected("an escape of JSON");
                ++at_;
                char bytes[4] = {"\"\\/\b\f\n\r\t"[known], 0, 0, 0};
                put(bytes, code == 'u' ? utf8_encode(unicode_escape(escape), bytes) : 1);
                continue;
            }
            const std::size_t sequence = byte < 0x80 ? 1 : utf8_sequence({text_ + at_, size_ - at_});
            if (sequence == 0) fail(at_, "not UTF-8");
            put(text_ + at_, sequence);
            at_ += sequence;
        }
        add(json_kind::string, begin, static_cast<std::uint32_t>(length));
    }

    text_pointer text_;
    std::size_t size_, at_ = 0;
    std::string_view source_;
    const json_options& options_;
    json_node* nodes_;
    std::uint64_t count_ = 0;
};

}  // namespace GATEFOLD_TIER
}  // namespace detail

inline namespace GATEFOLD_TIER {

/// Reads a JSON text.
///
/// `source` names the text in messages, a file name for example.
/// Throws: file_error with the byte where it is not JSON, not UTF-8, too deep, or has a name twice in one object.
inline json_document parse_json(std::string_view text, std::string_view source = "JSON",
                                const json_options& options = {}) {
    if (text.size() > 0xffffffffu) GATEFOLD_THROW(file_error(std::string(source) + ": JSON text of 4 GiB or more"));
    const std::uint64_t count = detail::json_parser<false>(text.data(), text.size(), source, options).parse();
    std::vector<detail::json_node> nodes(count);
    std::vector<char> copy(text.begin(), text.end());
    detail::json_parser<true>(copy.data(), copy.size(), source, options, nodes.data()).parse();
    return {std::move(nodes), std::move(copy)};
}

}  // namespace GATEFOLD_TIER
}  // namespace gatefold::inline v0
