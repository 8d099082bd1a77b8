#include "corpus.hpp"

#include <algorithm>
#include <filesystem>
#include <stdexcept>

#include <gatefold/io/file.hpp>

namespace train_text {
namespace {

namespace fs = std::filesystem;

/// Regular files of a folder in the order of their names; links name the same text twice.
std::vector<std::string> files_below(const fs::path& folder, bool into_folders, const char* extension) {
    std::vector<std::string> files;
    std::error_code failed;
    const auto take = [&](const fs::directory_entry& entry) {
        if (!entry.is_symlink(failed) && entry.is_regular_file(failed) &&
            (!*extension || entry.path().extension() == extension))
            files.push_back(entry.path().string());
    };
    if (into_folders)
        for (const auto& entry : fs::recursive_directory_iterator(folder, failed)) take(entry);
    else
        for (const auto& entry : fs::directory_iterator(folder, failed)) take(entry);
    std::sort(files.begin(), files.end());
    return files;
}

}  // namespace

std::uint64_t corpus::fingerprint() const {
    std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
    for (const std::string* part : {&training, &held_out})
        for (const char c : *part) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    return hash;
}

corpus read_corpus(std::vector<std::string> files, int context) {
    corpus text;
    if (!files.empty()) {
        text.description = files.size() == 1 ? files[0] : std::to_string(files.size()) + " files";
    } else {
        const fs::path licences = "/usr/share/common-licenses";
        files = files_below(licences, false, "");
        text.description = std::to_string(files.size()) + " files of " + licences.string();
        if (files.empty()) {
            const fs::path headers = fs::path(__FILE__).parent_path() / "../../include/gatefold";
            files = files_below(headers.lexically_normal(), true, ".hpp");
            text.description = std::to_string(files.size()) + " headers of gatefold";
        }
        if (files.empty()) throw std::runtime_error("no text found; name some with --text FILE...");
    }
    for (const std::string& name : files) {
        const gatefold::file_bytes bytes = gatefold::open_file(name);
        const std::string_view all = bytes.text();
        const std::size_t held = all.size() / 10;
        text.training += all.substr(0, all.size() - held);
        text.held_out += all.substr(all.size() - held);
    }
    text.files = std::move(files);
    const auto least = static_cast<std::size_t>(context) + 1;
    if (text.held_out.size() < least)
        throw std::runtime_error("too little text: a tenth of it has " + std::to_string(text.held_out.size()) +
                                 " bytes, at least " + std::to_string(least) + " are needed");
    return text;
}

}  // namespace train_text
