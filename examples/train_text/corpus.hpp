// What is read and how it is split: the last tenth of every file is never trained on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace train_text {

struct corpus {
    std::vector<std::string> files;
    std::string description;  ///< "14 files of /usr/share/common-licenses"
    std::string training, held_out;

    /// A number that tells two corpora apart.
    std::uint64_t fingerprint() const;
};

/// Reads the given files, or the default text where none is given.
///
/// Throws: std::runtime_error with one line for a file that cannot be read, or too little text.
corpus read_corpus(std::vector<std::string> files, int context);

}  // namespace train_text
