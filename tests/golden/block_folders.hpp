// The mixture-of-experts blocks of the golden data as configurations, found by looking: every folder of models/ that
// holds the tensors of a block, every file of gradients/blocks/.
//
//     config.json | metadata and shapes ──> examples/hub_config ──> block_case ──> block_generator: one test each
#pragma once

#include <string>
#include <vector>

#include <gatefold/config.hpp>

namespace block_folders {

struct block_case {
    std::string name;    ///< of the folder, or of the file without its ending
    std::string family;  ///< its model_type
    gatefold::config c;
    std::string fault;  ///< why no configuration expresses it, or ""
};

/// A block that no configuration expresses, with the reason.
struct excuse {
    std::string name, reason;
};

struct findings {
    std::vector<block_case> models, gradients;  ///< in the order of their names
    std::vector<std::string> without_block;     ///< folders of models/ that hold no block
};

/// All of a folder of golden data. Throws std::runtime_error where it is not one.
findings look(const std::string& golden);

/// What models/NAME says about its block.
block_case model_case(const std::string& golden, const std::string& name);
/// What gradients/blocks/NAME.safetensors says: the settings of its metadata over the config.json of a model of the
/// same family, with the extents of its tensors.
block_case gradient_case(const std::string& golden, const std::string& name);

/// The lines `NAME: reason` of a file; # begins a comment.
std::vector<excuse> read_excuses(const std::string& path);

}  // namespace block_folders
