// The command line of train_text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace train_text {

struct options {
    bool help = false;
    std::uint64_t seed = 1;
    int steps = 500;
    int contrast = 3;  ///< seeds of the runs without balancing
    int threads = 0;   ///< 0: as many as the machine has
    int generate = 400;
    bool only_generate = false;
    bool seed_given = false, steps_given = false;
    std::vector<std::string> text;
    std::string save, load, report, json;
    std::string prompt = "This License ";
};

/// A command line that cannot be carried out; the message is one line.
struct usage_error {
    std::string message;
};

/// Throws: usage_error.
options parse(int count, char** arguments);

/// What --help prints.
extern const char* const help_text;

}  // namespace train_text
