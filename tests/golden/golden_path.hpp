// Where the golden data lies.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

#include <boost/test/unit_test.hpp>

namespace golden_data {

/// A place in the golden data, or "" (and a message) where there are none: the environment names them, or the build.
inline std::string golden_path(const std::string& name) {
#if defined(GATEFOLD_GOLDEN_DIR)
    std::string folder = GATEFOLD_GOLDEN_DIR;
#else
    std::string folder;
#endif
    if (const char* set = std::getenv("GATEFOLD_GOLDEN_DIR"); set != nullptr && *set != '\0') folder = set;
    const std::string path = folder + "/" + name;
    if (!folder.empty() && std::filesystem::exists(path)) return path;
    BOOST_TEST_MESSAGE("skipped: no golden data " << path << " (GATEFOLD_GOLDEN_DIR)");
    return "";
}

}  // namespace golden_data
