// Plots as SVG text. Every drawing is 360 units wide with type of 11 units, so that it can be read at the width of a
// telephone and, two beside each other, on a wide screen. Colours are the page's: they follow light and dark.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace train_text {

struct line_of_plot {
    std::string name, colour;  ///< a CSS colour
    std::vector<std::pair<double, double>> points;
    bool thin = false, dots = false, dashed = false;
};

/// Lines over a common x; both axes with round numbers.
std::string line_plot(const std::vector<line_of_plot>& lines, const std::string& x_name, const std::string& y_name);

/// Shares of a whole over x, stacked; shares[i][j]: of part j at x[i].
std::string stacked_plot(const std::vector<double>& x, const std::vector<std::vector<double>>& shares,
                         const std::string& x_name, const std::string& y_name);

/// One cell for each value, darker for more; `most` has the full colour.
std::string heat_map(const std::vector<std::string>& rows, const std::vector<std::string>& columns,
                     const std::vector<std::vector<double>>& values, double most, const std::string& x_name);

/// The text with the characters that HTML reserves replaced.
std::string escaped(const std::string& text);

/// printf into a string.
std::string format(const char* pattern, ...) __attribute__((format(printf, 1, 2)));

}  // namespace train_text
