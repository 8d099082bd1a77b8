// Plots as SVG text. Every drawing is 360 units wide with type of 11 units, so that it can be read at the width of a
// telephone and, two beside each other, on a wide screen. In a page colours are the page's; write_svg brings its own,
// which follow light and dark.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace plot {

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

/// Bars beside each other in groups: values[i][j] is the bar of series j over name i; `low` and `high` (empty for none)
/// are the ends of a thin line over each bar.
std::string bar_plot(const std::vector<std::string>& names, const std::vector<std::string>& series,
                     const std::vector<std::vector<double>>& values, const std::vector<std::vector<double>>& low,
                     const std::vector<std::vector<double>>& high, const std::string& y_name);

/// Writes plots below each other as one SVG file that needs nothing else.
///
/// Throws: std::runtime_error naming the file if it cannot be written.
void write_svg(const std::string& path, const std::vector<std::string>& plots);

/// The text with the characters that HTML reserves replaced.
std::string escaped(const std::string& text);

/// printf into a string.
std::string format(const char* pattern, ...) __attribute__((format(printf, 1, 2)));

}  // namespace plot
