// From a hub configuration to the mixture-of-experts block that it describes.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <gatefold/config.hpp>

namespace hub_config {

/// What a config.json says about its blocks.
struct block {
    std::string family;
    gatefold::config c;
    int layers = 0;                  ///< blocks of the decoder
    int sparse = 0;                  ///< those of them with experts; none of a model without
    bool per_sequence = false;       ///< a capacity is that of one sequence
    std::vector<std::string> notes;  ///< what the type does not express, or leaves to the caller
};

/// The text of a config.json as a value. Throws config_fault for text that is not JSON or has a name twice.
nlohmann::json parse_config(const std::string& text);

/// Reads the configuration of any known family. Throws config_fault for unknown families and fields, missing or
/// contradictory ones, and for what no type expresses.
block read_block(const nlohmann::json& config);

/// The families that read_block knows by their model_type.
std::vector<std::string> families();

/// The configuration as a C++ expression: gf::config{.hidden = …}. Of several named routers that are as near, that of
/// the family is taken.
std::string literal_of(const gatefold::config& c, const std::string& family = "");

}  // namespace hub_config
