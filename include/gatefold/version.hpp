// The version, for the preprocessor and for programs.
#pragma once

#include <gatefold/core/macros.hpp>

#define GATEFOLD_VERSION_MAJOR 0
#define GATEFOLD_VERSION_MINOR 1
#define GATEFOLD_VERSION_PATCH 0

namespace gatefold::inline v0 {

inline constexpr int version_major = GATEFOLD_VERSION_MAJOR;
inline constexpr int version_minor = GATEFOLD_VERSION_MINOR;
inline constexpr int version_patch = GATEFOLD_VERSION_PATCH;

}  // namespace gatefold::inline v0
