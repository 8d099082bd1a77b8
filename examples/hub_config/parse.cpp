// The text of a config.json as a value: strict, but for the infinities and NaNs that Python writes into configurations.
#include <set>
#include <vector>

#include "block.hpp"
#include "fields.hpp"

namespace hub_config {
namespace {

/// Infinity, -Infinity and NaN outside of strings become null, a field without a value: no field of a block has one.
std::string without_infinities(const std::string& text) {
    std::string result;
    bool inside = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (inside) {
            if (text[i] == '\\' && i + 1 < text.size()) result += text[i++];
            if (text[i] == '"') inside = false;
            result += text[i];
            continue;
        }
        bool replaced = false;
        for (const std::string_view word : {"-Infinity", "Infinity", "NaN"})
            if (!replaced && std::string_view(text).substr(i, word.size()) == word) {
                result += "null";
                i += word.size() - 1;
                replaced = true;
            }
        if (replaced) continue;
        if (text[i] == '"') inside = true;
        result += text[i];
    }
    return result;
}

}  // namespace

nlohmann::json parse_config(const std::string& text) {
    using event = nlohmann::json::parse_event_t;
    std::vector<std::set<std::string>> names;
    // A name twice is a contradiction that the parser would settle by itself; depth is bounded because values are
    // printed recursively.
    const auto look = [&](int depth, event e, nlohmann::json& value) {
        if (depth > 16) throw config_fault("config: nested more than 16 deep");
        if (e == event::object_start) names.emplace_back();
        if (e == event::object_end) names.pop_back();
        if (e == event::key && !names.back().insert(value.get<std::string>()).second)
            throw config_fault(value.get<std::string>() + ": stands there twice");
        return true;
    };
    try {
        return nlohmann::json::parse(without_infinities(text), look);
    } catch (const nlohmann::json::exception& e) {
        throw config_fault(std::string("config: not JSON: ") + e.what());
    }
}

}  // namespace hub_config
