// The fields of a config.json, read one by one: what is missing, contradicts itself or is left over is an error.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace hub_config {

/// A configuration that cannot be turned into a type; `what()` has a line per field.
struct config_fault : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// The largest extent or number of layers that is believed: products of four of them can be counted.
inline constexpr int most = 1 << 20;

/// A value as text, cut where it is long.
inline std::string shown(const nlohmann::json& value) {
    const std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    return text.size() <= 200 ? text : text.substr(0, 200) + "...";
}

/// Reads the members of one JSON object and remembers which were looked at.
class fields {
public:
    explicit fields(const nlohmann::json& object) : object_(object) {
        if (!object.is_object())
            throw config_fault("config: expected a JSON object, got " + std::string(object.type_name()));
    }

    /// Whether the field is there and not null.
    bool has(const std::string& name) {
        const auto it = object_.find(name);
        if (it == object_.end()) return false;
        seen_.insert(name);
        return !it->is_null();
    }
    /// The field itself; null where it is missing.
    const nlohmann::json& at(const std::string& name) {
        static const nlohmann::json none;
        return has(name) ? object_.at(name) : none;
    }

    /// A list; an empty one where it is missing or something else.
    const nlohmann::json& list(const std::string& name) {
        static const nlohmann::json none = nlohmann::json::array();
        if (!has(name)) return none;
        if (object_.at(name).is_array()) return object_.at(name);
        fault(name, "expected a list, got " + shown(object_.at(name)));
        return none;
    }

    /// A whole number of at least `least`. A list counts when all its numbers are equal: Hunyuan names one per layer.
    int integer(const std::string& name, int least = 1) {
        if (!has(name)) return missing(name), least;
        return integer_of(name, object_.at(name), least);
    }
    /// The same, with the value of a field that is not there.
    int integer_or(const std::string& name, int otherwise, int least = 0) {
        return has(name) ? integer_of(name, object_.at(name), least) : otherwise;
    }
    /// A number under one of several names; all that are there must agree.
    int one_of(std::initializer_list<const char*> names, int least = 1) {
        int value = 0;
        std::string first;
        for (const char* name : names) {
            if (!has(name)) continue;
            const int here = integer_of(name, object_.at(name), least);
            if (!first.empty() && here != value)
                fault(name,
                      "contradicts " + first + " (" + std::to_string(here) + " and " + std::to_string(value) + ")");
            first = name;
            value = here;
        }
        if (first.empty()) return missing(*names.begin()), least;
        return value;
    }
    double number(const std::string& name) {
        if (!has(name)) return missing(name), 0;
        return number_or(name, 0);
    }
    double number_or(const std::string& name, double otherwise) {
        if (!has(name)) return otherwise;
        const double value = object_.at(name).is_number() ? object_.at(name).get<double>() : 1e300;
        if (value >= -1e9 && value <= 1e9) return value;
        return fault(name, "expected a number of at most 1e9, got " + shown(object_.at(name))), otherwise;
    }
    bool flag(const std::string& name) {
        if (!has(name)) return missing(name), false;
        return flag_or(name, false);
    }
    bool flag_or(const std::string& name, bool otherwise) {
        if (!has(name)) return otherwise;
        if (!object_.at(name).is_boolean())
            return fault(name, "expected true or false, got " + shown(object_.at(name))), otherwise;
        return object_.at(name).get<bool>();
    }
    std::string text_or(const std::string& name, const std::string& otherwise) {
        if (!has(name)) return otherwise;
        if (!object_.at(name).is_string())
            return fault(name, "expected a text, got " + shown(object_.at(name))), otherwise;
        return object_.at(name).get<std::string>();
    }
    std::string text(const std::string& name) {
        if (!has(name)) return missing(name), "";
        return text_or(name, "");
    }

    /// A field that may only have one value here.
    template <class T>
    void expect(const std::string& name, const T& value) {
        if (has(name) && object_.at(name) != nlohmann::json(value))
            fault(name, "expected " + shown(value) + ", got " + shown(object_.at(name)));
    }
    /// Whether nothing was wrong so far, so that fields can be compared with each other.
    bool is_sound() const { return faults_.empty(); }
    void fault(const std::string& name, const std::string& text) { faults_.push_back(name + ": " + text); }
    /// Fields that say nothing about the block.
    template <class Names>
    void ignore(const Names& names) {
        for (const auto& name : names) seen_.insert(std::string(name));
    }

    /// Throws if anything was wrong or left over.
    void finish(const std::string& family) {
        for (const auto& [name, value] : object_.items())
            if (!seen_.contains(name)) fault(name, "unknown to " + family);
        if (faults_.empty()) return;
        std::string text;
        for (const std::string& fault : faults_) text += (text.empty() ? "" : "\n") + fault;
        throw config_fault(text);
    }

private:
    void missing(const std::string& name) { fault(name, "missing"); }
    int integer_of(const std::string& name, const nlohmann::json& value, int least) {
        const bool one = value.is_array() && !value.empty() &&
                         std::all_of(value.begin(), value.end(), [&](const auto& v) { return v == value.front(); });
        const nlohmann::json& number = one ? value.front() : value;
        // As doubles: the library compares 2^64 - 1 as -1.
        const double value_of = number.is_number_integer() ? number.get<double>() : -1e300;
        if (value_of >= least && value_of <= most) return number.get<int>();
        fault(name, "expected a whole number of at " +
                        (value_of > most ? "most " + std::to_string(most) : "least " + std::to_string(least)) +
                        ", got " + shown(value));
        return least;
    }

    const nlohmann::json& object_;
    std::set<std::string> seen_;
    std::vector<std::string> faults_;
};

}  // namespace hub_config
