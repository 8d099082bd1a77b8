#include "plot.hpp"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <stdexcept>

#include <gatefold/io/file.hpp>

namespace plot {
namespace {

constexpr double width = 360, left = 46, right = 350, top = 10, bottom = 186, height = 222;

const char* const file_style = R"(
svg{color-scheme:light dark;--page:#fff;--ink:#1b1f24;--soft:#5b6570;--rule:#d9dee4;--a:#0b62c4;--b:#c2410c;--c:#6d28d9;
--heat:#0b62c4;--e0:#4e79a7;--e1:#f0a04b;--e2:#d9626b;--e3:#6fb3ae;--e4:#63a355;--e5:#e3c44f;--e6:#ab7fa3;--e7:#9c8577;
font:11px system-ui,sans-serif}
@media(prefers-color-scheme:dark){svg{--page:#14181d;--ink:#e6eaee;--soft:#9aa5b1;--rule:#333b44;--a:#6cb0ff;--b:#ff9a5c;
--c:#c3a3ff;--heat:#6cb0ff}}
.page{fill:var(--page)}text{fill:var(--ink)}.in{fill:#111;font-weight:600}.grid{stroke:var(--rule)}.axis{stroke:var(--soft)}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.thin{stroke-width:1;opacity:.55}
.e0{fill:var(--e0)}.e1{fill:var(--e1)}.e2{fill:var(--e2)}.e3{fill:var(--e3)}.e4{fill:var(--e4)}.e5{fill:var(--e5)}
.e6{fill:var(--e6)}.e7{fill:var(--e7)}.cell{fill:var(--heat);stroke:var(--rule);stroke-width:.5}
)";

std::string open_svg(double h, const std::string& title) {
    return format("<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"%s\">", width, h, escaped(title).c_str());
}

std::string text_at(double x, double y, const char* anchor, const std::string& text, const char* extra = "") {
    return format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>%s</text>", x, y, anchor, extra,
                  escaped(text).c_str());
}

/// A step of 1, 2 or 5 times a power of ten, for about `count` steps.
double round_step(double range, int count) {
    const double raw = range / count, power = std::pow(10, std::floor(std::log10(raw)));
    for (const double factor : {1.0, 2.0, 5.0})
        if (raw <= factor * power) return factor * power;
    return 10 * power;
}

/// The first multiple of the step that is not below `low`; plus zero, because minus zero would be written with its
/// sign.
double first_tick(double low, double step) { return std::ceil(low / step - 1e-9) * step + 0.0; }

struct axis {
    double low, high, from, to;
    double operator()(double v) const { return from + (v - low) / (high - low) * (to - from); }
};

std::string number_text(double v, double step) {
    const int digits = step >= 1 ? 0 : static_cast<int>(std::ceil(-std::log10(step) - 1e-9));
    return format("%.*f", digits, v);
}

std::string frame(const axis& x, const axis& y, const std::string& x_name, const std::string& y_name, double y_step) {
    std::string svg;
    for (double v = first_tick(y.low, y_step); v <= y.high + 1e-9; v += y_step) {
        svg += format("<line class=\"grid\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\"/>", left, right, y(v), y(v));
        svg += text_at(left - 5, y(v) + 3.5, "end", number_text(v, y_step));
    }
    const double x_step = round_step(x.high - x.low, 5);
    for (double v = first_tick(x.low, x_step); v <= x.high + 1e-9; v += x_step)
        svg += text_at(x(v), bottom + 14, v > x.high - x_step / 4 ? "end" : "middle", number_text(v, x_step));
    svg += format("<line class=\"axis\" x1=\"%g\" x2=\"%g\" y1=\"%g\" y2=\"%g\"/>", left, right, bottom, bottom);
    svg += text_at((left + right) / 2, height - 6, "middle", x_name);
    svg += text_at(10, (top + bottom) / 2, "middle", y_name,
                   format(" transform=\"rotate(-90 10 %g)\"", (top + bottom) / 2).c_str());
    return svg;
}

}  // namespace

std::string format(const char* pattern, ...) {
    char buffer[512];
    std::va_list arguments, again;
    va_start(arguments, pattern);
    va_copy(again, arguments);
    const int length = std::vsnprintf(buffer, sizeof buffer, pattern, arguments);
    va_end(arguments);
    std::string text(buffer, static_cast<std::size_t>((std::min)(length, static_cast<int>(sizeof buffer) - 1)));
    if (length >= static_cast<int>(sizeof buffer)) {
        text.resize(static_cast<std::size_t>(length) + 1);
        std::vsnprintf(text.data(), text.size(), pattern, again);
        text.pop_back();
    }
    va_end(again);
    return text;
}

std::string escaped(const std::string& text) {
    std::string safe;
    for (const char c : text) {
        if (c == '&')
            safe += "&amp;";
        else if (c == '<')
            safe += "&lt;";
        else if (c == '>')
            safe += "&gt;";
        else if (c == '"')
            safe += "&quot;";
        else
            safe += c;
    }
    return safe;
}

std::string line_plot(const std::vector<line_of_plot>& lines, const std::string& x_name, const std::string& y_name) {
    double x_high = 1, y_low = 1e300, y_high = -1e300;
    for (const auto& l : lines)
        for (const auto& [x, y] : l.points) {
            x_high = (std::max)(x_high, x);
            y_low = (std::min)(y_low, y);
            y_high = (std::max)(y_high, y);
        }
    if (y_low > y_high) y_low = 0, y_high = 1;
    const double y_step = round_step((std::max)(y_high - y_low, 1e-3), 5);
    const axis x{0, x_high, left, right},
        y{std::floor(y_low / y_step) * y_step, std::ceil(y_high / y_step) * y_step, bottom, top};

    std::string svg = open_svg(height, y_name + " over " + x_name) + frame(x, y, x_name, y_name, y_step);
    for (const auto& l : lines) {
        std::string points;
        for (const auto& [px, py] : l.points) points += format("%.1f,%.1f ", x(px), y(py));
        svg += format("<polyline class=\"line%s\" style=\"stroke:%s%s\" points=\"%s\"/>", l.thin ? " thin" : "",
                      l.colour.c_str(), l.dashed ? ";stroke-dasharray:5 3" : "", points.c_str());
        if (l.dots)
            for (const auto& [px, py] : l.points)
                svg += format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.4\" style=\"fill:%s\"/>", x(px), y(py),
                              l.colour.c_str());
    }
    // Names stand in the upper right, where curves that fall leave room.
    double at = top + 10;
    for (const auto& l : lines) {
        if (l.name.empty()) continue;
        svg += format("<line class=\"line\" style=\"stroke:%s%s\" x1=\"%g\" x2=\"%g\" y1=\"%g\" y2=\"%g\"/>",
                      l.colour.c_str(), l.dashed ? ";stroke-dasharray:5 3" : "", right - 20, right - 2, at - 4, at - 4);
        svg += text_at(right - 26, at, "end", l.name);
        at += 15;
    }
    return svg + "</svg>";
}

std::string stacked_plot(const std::vector<double>& x_values, const std::vector<std::vector<double>>& shares,
                         const std::string& x_name, const std::string& y_name) {
    const double x_high = x_values.empty() ? 1 : x_values.back(), x_low = x_values.empty() ? 0 : x_values.front();
    const axis x{x_low, x_high > x_low ? x_high : x_low + 1, left, right}, y{0, 100, bottom, top};
    std::string svg = open_svg(height, y_name + " over " + x_name);
    const std::size_t parts = shares.empty() ? 0 : shares[0].size();
    std::vector<double> below(shares.size(), 0);
    for (std::size_t part = 0; part < parts; ++part) {
        std::string points;
        for (std::size_t i = 0; i < shares.size(); ++i) points += format("%.1f,%.1f ", x(x_values[i]), y(below[i]));
        for (std::size_t i = shares.size(); i-- > 0;)
            points += format("%.1f,%.1f ", x(x_values[i]), y(below[i] += 100 * shares[i][part]));
        svg += format("<polygon class=\"e%zu\" points=\"%s\"/>", part % 8, points.c_str());
        const double end = shares.empty() ? 0 : 100 * shares.back()[part];
        if (end >= 6)
            svg += text_at(right - 5, y(below.back() - end / 2) + 4, "end", std::to_string(part), " class=\"in\"");
    }
    return svg + frame(x, y, x_name, y_name, 25) + "</svg>";
}

std::string heat_map(const std::vector<std::string>& rows, const std::vector<std::string>& columns,
                     const std::vector<std::vector<double>>& values, double most, const std::string& x_name) {
    std::size_t longest = 0;
    for (const std::string& name : rows) longest = (std::max)(longest, name.size());
    const double cell_height = 15, first = (std::max)(84.0, 6.2 * static_cast<double>(longest) + 8),
                 cell_width = (right - first) / static_cast<double>(columns.size());
    const double h = 24 + cell_height * static_cast<double>(rows.size()) + 18;
    std::string svg = open_svg(h, x_name);
    for (std::size_t j = 0; j < columns.size(); ++j)
        svg += text_at(first + cell_width * (static_cast<double>(j) + 0.5), 15, "middle", columns[j]);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const double y = 20 + cell_height * static_cast<double>(i);
        svg += text_at(first - 5, y + 11, "end", rows[i]);
        for (std::size_t j = 0; j < columns.size(); ++j)
            svg += format(
                "<rect class=\"cell\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%g\" "
                "style=\"fill-opacity:%.3f\"><title>%s, %s: %.1f %%</title></rect>",
                first + cell_width * static_cast<double>(j), y, cell_width - 1, cell_height - 1,
                (std::min)(1.0, values[i][j] / most), escaped(rows[i]).c_str(), escaped(columns[j]).c_str(),
                100 * values[i][j]);
    }
    svg += text_at((first + right) / 2, h - 6, "middle", x_name);
    return svg + "</svg>";
}

std::string bar_plot(const std::vector<std::string>& names, const std::vector<std::string>& series,
                     const std::vector<std::vector<double>>& values, const std::vector<std::vector<double>>& low,
                     const std::vector<std::vector<double>>& high, const std::string& y_name) {
    double most = 0;
    for (const auto* all : {&values, &high})
        for (const auto& group : *all)
            for (const double v : group) most = (std::max)(most, v);
    const double step = round_step((std::max)(most, 1e-3), 5);
    const axis y{0, std::ceil(most / step) * step, bottom, top};
    std::string svg = open_svg(height, y_name);
    for (double v = 0; v <= y.high + 1e-9; v += step) {
        svg += format("<line class=\"grid\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\"/>", left, right, y(v), y(v));
        svg += text_at(left - 5, y(v) + 3.5, "end", number_text(v, step));
    }
    const double room = (right - left) / static_cast<double>(names.size());
    const double wide = 0.8 * room / static_cast<double>(series.size());
    for (std::size_t i = 0; i < names.size(); ++i) {
        const double x = left + room * (static_cast<double>(i) + 0.1);
        for (std::size_t j = 0; j < series.size(); ++j) {
            const double at = x + wide * static_cast<double>(j), v = values[i][j];
            svg += format("<rect class=\"e%zu\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>", j % 8, at,
                          y(v), 0.95 * wide, bottom - y(v));
            if (!low.empty())
                svg += format("<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>",
                              at + 0.475 * wide, at + 0.475 * wide, y(low[i][j]), y(high[i][j]));
        }
        // Many names take turns on two lines.
        const double line = names.size() > 5 && i % 2 == 1 ? 27 : 14;
        svg += text_at(left + room * (static_cast<double>(i) + 0.5), bottom + line, "middle", names[i]);
    }
    svg += format("<line class=\"axis\" x1=\"%g\" x2=\"%g\" y1=\"%g\" y2=\"%g\"/>", left, right, bottom, bottom);
    svg += text_at(10, (top + bottom) / 2, "middle", y_name,
                   format(" transform=\"rotate(-90 10 %g)\"", (top + bottom) / 2).c_str());
    double at = top + 10;
    for (std::size_t j = 0; series.size() > 1 && j < series.size(); ++j, at += 15) {
        svg += format("<rect class=\"e%zu\" x=\"%g\" y=\"%g\" width=\"10\" height=\"10\"/>", j % 8, right - 12, at - 9);
        svg += text_at(right - 18, at, "end", series[j]);
    }
    return svg + "</svg>";
}

void write_svg(const std::string& path, const std::vector<std::string>& plots) {
    std::string body;
    double from = 0;
    for (const std::string& one : plots) {
        const auto box = one.find("viewBox=\"0 0 ") + 13;
        double w = width, h = height;
        if (std::sscanf(one.c_str() + box, "%lf %lf", &w, &h) != 2)
            throw std::runtime_error("a plot without a viewBox");
        body += format("<svg y=\"%g\" width=\"%g\" height=\"%g\"", from, w, h) + one.substr(4) + "\n";
        from += h + 12;
    }
    const std::string all =
        format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\">\n<style>", width, from) + file_style +
        "</style>\n<rect class=\"page\" width=\"100%\" height=\"100%\"/>\n" + body + "</svg>\n";
    gatefold::write_file(path, all);
}

}  // namespace plot
