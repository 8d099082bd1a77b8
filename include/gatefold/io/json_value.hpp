// What a JSON text becomes in memory: nodes in reading order, and the value that walks them.
//
//     json_document { nodes, text } ──> json_value (a pair of pointers) ──> string(), number(), elements(), members(),
//     find()
//
// A container knows how many nodes lie inside it, so that its next sibling is one addition away.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gatefold/core/error.hpp>
#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0 {

/// An integer is `integer` from 0 to 2^64-1, `negative` from -2^63 to -1, and `real` beyond.
enum class json_kind : std::uint8_t { null, boolean, integer, negative, real, string, array, object };

namespace detail {

struct json_node {
    json_kind kind;
    std::uint32_t size;     // string: bytes; array: elements; object: members
    std::uint64_t payload;  // number: its bits; string: offset in the text; array, object: nodes up to its end
};
static_assert(sizeof(json_node) == 16);

inline constexpr const char* json_kind_names[] = {"null",     "true or false", "an integer", "a negative integer",
                                                  "a number", "a string",      "an array",   "an object"};

/// Where the node after this value (and all inside it) stands, in nodes.
GATEFOLD_INLINE std::uint64_t json_extent(const json_node& node) {
    return node.kind >= json_kind::array ? node.payload : 1;
}

}  // namespace detail

/// One value of a json_document, a pair of pointers; valid as long as the document lives (also when it is moved).
class json_value {
public:
    json_value() = default;
    GATEFOLD_INLINE json_value(const detail::json_node* node, const char* text) : node_(node), text_(text) {}

    /// False for what find() did not find.
    GATEFOLD_INLINE explicit operator bool() const { return node_ != nullptr; }
    GATEFOLD_INLINE json_kind kind() const { return node_->kind; }
    GATEFOLD_INLINE bool is(json_kind kind) const { return node_ != nullptr && node_->kind == kind; }
    /// The kind in words, for messages: "an array".
    GATEFOLD_INLINE const char* kind_name() const {
        return node_ == nullptr ? "nothing" : detail::json_kind_names[static_cast<int>(node_->kind)];
    }

    /// The text of a string, decoded; throws argument_error if it is none (as all of these do).
    GATEFOLD_INLINE std::string_view string() const {
        expect(is(json_kind::string), "string", "a string");
        return {text_ + node_->payload, node_->size};
    }
    GATEFOLD_INLINE bool boolean() const {
        expect(is(json_kind::boolean), "boolean", "true or false");
        return node_->payload != 0;
    }
    /// Any number as the nearest double.
    GATEFOLD_INLINE double number() const {
        if (is(json_kind::integer)) return static_cast<double>(node_->payload);
        if (is(json_kind::negative)) return static_cast<double>(static_cast<std::int64_t>(node_->payload));
        expect(is(json_kind::real), "number", "a number");
        return std::bit_cast<double>(node_->payload);
    }
    /// The exact value of an integer that is written as one (no point, no exponent) and fits; else nothing.
    GATEFOLD_INLINE std::optional<std::uint64_t> unsigned_integer() const {
        if (!is(json_kind::integer)) return std::nullopt;
        return node_->payload;
    }
    GATEFOLD_INLINE std::optional<std::int64_t> signed_integer() const {
        const bool fits = is(json_kind::negative) || (is(json_kind::integer) && node_->payload >> 63 == 0);
        if (!fits) return std::nullopt;
        return static_cast<std::int64_t>(node_->payload);
    }

    /// The number of elements of an array or members of an object.
    GATEFOLD_INLINE std::uint32_t size() const {
        expect(node_ != nullptr && node_->kind >= json_kind::array, "size", "an array or an object");
        return node_->size;
    }

    class elements_range;
    class members_range;
    /// for (json_value element : value.elements())
    elements_range elements() const;
    /// for (auto [name, member] : value.members())
    members_range members() const;
    /// The last member of this name, or a false value; also false if this is no object. Takes time in the size.
    json_value find(std::string_view name) const;

private:
    GATEFOLD_INLINE void expect(bool holds, const char* function, const char* expected) const {
        if (!holds) [[unlikely]]
            detail::reject((std::string("json_value::") + function).c_str(), "value", expected, kind_name());
    }

    const detail::json_node* node_ = nullptr;
    const char* text_ = nullptr;
};

struct json_member {
    std::string_view name;
    json_value value;
};

class json_value::elements_range {
public:
    class iterator {
    public:
        GATEFOLD_INLINE iterator(const detail::json_node* node, const char* text) : node_(node), text_(text) {}
        GATEFOLD_INLINE json_value operator*() const { return {node_, text_}; }
        GATEFOLD_INLINE iterator& operator++() {
            node_ += detail::json_extent(*node_);
            return *this;
        }
        GATEFOLD_INLINE bool operator!=(const iterator& other) const { return node_ != other.node_; }

    private:
        const detail::json_node* node_;
        const char* text_;
    };
    GATEFOLD_INLINE elements_range(const detail::json_node* array, const char* text) : array_(array), text_(text) {}
    GATEFOLD_INLINE iterator begin() const { return {array_ + 1, text_}; }
    GATEFOLD_INLINE iterator end() const { return {array_ + array_->payload, text_}; }

private:
    const detail::json_node* array_;
    const char* text_;
};

class json_value::members_range {
public:
    class iterator {
    public:
        GATEFOLD_INLINE iterator(const detail::json_node* node, const char* text) : node_(node), text_(text) {}
        GATEFOLD_INLINE json_member operator*() const {
            return {{text_ + node_->payload, node_->size}, {node_ + 1, text_}};
        }
        GATEFOLD_INLINE iterator& operator++() {
            node_ += 1 + detail::json_extent(node_[1]);
            return *this;
        }
        GATEFOLD_INLINE bool operator!=(const iterator& other) const { return node_ != other.node_; }

    private:
        const detail::json_node* node_;  // the name; its value is the next node
        const char* text_;
    };
    GATEFOLD_INLINE members_range(const detail::json_node* object, const char* text) : object_(object), text_(text) {}
    GATEFOLD_INLINE iterator begin() const { return {object_ + 1, text_}; }
    GATEFOLD_INLINE iterator end() const { return {object_ + object_->payload, text_}; }

private:
    const detail::json_node* object_;
    const char* text_;
};

GATEFOLD_INLINE json_value::elements_range json_value::elements() const {
    expect(is(json_kind::array), "elements", "an array");
    return {node_, text_};
}

GATEFOLD_INLINE json_value::members_range json_value::members() const {
    expect(is(json_kind::object), "members", "an object");
    return {node_, text_};
}

GATEFOLD_INLINE json_value json_value::find(std::string_view name) const {
    json_value found;
    if (is(json_kind::object))
        for (const json_member member : members())
            if (member.name == name) found = member.value;
    return found;
}

/// A parsed text; owns what its values point into.
class json_document {
public:
    json_document() = default;
    GATEFOLD_INLINE json_document(std::vector<detail::json_node> nodes, std::vector<char> text)
        : nodes_(std::move(nodes)), text_(std::move(text)) {}
    GATEFOLD_INLINE json_value root() const { return {nodes_.data(), text_.data()}; }

private:
    std::vector<detail::json_node> nodes_;
    std::vector<char> text_;
};

}  // namespace gatefold::inline v0
