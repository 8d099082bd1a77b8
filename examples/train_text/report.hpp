// What is left of a run: one HTML page that needs nothing else, and the same figures as JSON.
#pragma once

#include <string>

#include "figures.hpp"

namespace train_text {

std::string report_page(const figures& all);
std::string json_of(const figures& all);

}  // namespace train_text
