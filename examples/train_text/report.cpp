#include "report.hpp"

#include <algorithm>
#include <numeric>

#include "../common/plot.hpp"

namespace train_text {
namespace {

using namespace plot;

const char* const style = R"(
:root{color-scheme:light dark;--page:#fff;--ink:#1b1f24;--soft:#5b6570;--rule:#d9dee4;--card:#f6f8fa;
--a:#0b62c4;--b:#c2410c;--c:#6d28d9;--heat:#0b62c4;
--e0:#4e79a7;--e1:#f0a04b;--e2:#d9626b;--e3:#6fb3ae;--e4:#63a355;--e5:#e3c44f;--e6:#ab7fa3;--e7:#9c8577}
@media(prefers-color-scheme:dark){:root{--page:#14181d;--ink:#e6eaee;--soft:#9aa5b1;--rule:#333b44;--card:#1c222a;
--a:#6cb0ff;--b:#ff9a5c;--c:#c3a3ff;--heat:#6cb0ff;
--e0:#6c98c8;--e1:#d99048;--e2:#cf6a72;--e3:#5f9f9a;--e4:#6aa85d;--e5:#c9ad45;--e6:#a67ea0;--e7:#9a8577}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:1120px;margin:0 auto;padding:20px 16px 48px}
h1{font-size:1.5rem;line-height:1.25;margin:8px 0 4px}h2{font-size:1.15rem;margin:36px 0 4px}h3{font-size:1rem;margin:0 0 4px}
p{margin:6px 0;max-width:76ch}.soft{color:var(--soft)}
.tiles,.plots{display:grid;gap:14px;margin-top:14px}
.tiles{grid-template-columns:repeat(auto-fit,minmax(136px,1fr))}.plots{grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr))}
.tile,figure{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:10px 12px;margin:0;min-width:0}
.tile b{display:block;font-size:1.45rem;line-height:1.3;font-variant-numeric:tabular-nums}
svg{display:block;width:100%;height:auto;font:11px system-ui,sans-serif}
svg text{fill:var(--ink)}svg .in{fill:#111;font-weight:600}
.grid{stroke:var(--rule)}.axis{stroke:var(--soft)}.line{fill:none;stroke-width:2;stroke-linejoin:round}.thin{stroke-width:1;opacity:.55}
.e0{fill:var(--e0)}.e1{fill:var(--e1)}.e2{fill:var(--e2)}.e3{fill:var(--e3)}.e4{fill:var(--e4)}.e5{fill:var(--e5)}.e6{fill:var(--e6)}.e7{fill:var(--e7)}
.cell{fill:var(--heat);stroke:var(--rule);stroke-width:.5}
.wide{overflow-x:auto}table{border-collapse:collapse;margin-top:10px;font-variant-numeric:tabular-nums}
th,td{padding:4px 14px 4px 0;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}th{font-weight:600}
th:first-child,td:first-child{text-align:left;white-space:normal}
pre{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:12px;white-space:pre-wrap;overflow-wrap:anywhere;font:14px/1.45 ui-monospace,monospace}
)";

std::string grouped(std::int64_t n) {
    const std::string digits = std::to_string(n);
    std::string text;
    for (std::size_t i = 0; i < digits.size(); ++i) {
        if (i > 0 && (digits.size() - i) % 3 == 0) text += "\u2009";
        text += digits[i];
    }
    return text;
}

std::string tile(const std::string& number, const std::string& what) {
    return "<div class=\"tile\"><b>" + number + "</b>" + what + "</div>";
}

std::string figure(const std::string& title, const std::string& svg) {
    return "<figure><h3>" + title + "</h3>" + svg + "</figure>\n";
}

/// Means over neighbouring steps: at most 120 points.
std::vector<std::pair<double, double>> smoothed(const std::vector<double>& loss) {
    std::vector<std::pair<double, double>> points;
    const std::size_t width = (std::max)(loss.size() / 120, std::size_t{1});
    for (std::size_t i = 0; i + width <= loss.size(); i += width) {
        const auto first = loss.begin() + static_cast<std::ptrdiff_t>(i);
        const double sum = std::accumulate(first, first + static_cast<std::ptrdiff_t>(width), 0.0);
        points.emplace_back(static_cast<double>(i + width), sum / static_cast<double>(width));
    }
    return points;
}

std::vector<std::pair<double, double>> held_out(const run_figures& r) {
    std::vector<std::pair<double, double>> points;
    for (const auto& p : r.held_out) points.emplace_back(p.step, p.loss);
    return points;
}

std::string load_plot(const run_figures& r, int layer) {
    std::vector<double> x;
    std::vector<std::vector<double>> shares;
    for (const auto& p : r.loads) {
        const auto first = p.counts.begin() + static_cast<std::ptrdiff_t>(layer) * r.experts;
        const double total = static_cast<double>(std::accumulate(first, first + r.experts, std::int64_t{0}));
        x.push_back(p.step);
        shares.emplace_back();
        for (auto c = first; c != first + r.experts; ++c)
            shares.back().push_back(total > 0 ? static_cast<double>(*c) / total : 0);
    }
    return stacked_plot(x, shares, "step", "% of choices");
}

std::string byte_name(int byte) {
    if (byte == ' ') return "space";
    if (byte == '\n') return "new line";
    if (byte == '\t') return "tab";
    if (byte > ' ' && byte <= '~') return std::string(1, static_cast<char>(byte));
    return format("byte %d", byte);
}

/// The bytes that occur most often, and where they were sent.
std::string byte_map(const run_figures& r, int layer) {
    const auto n = static_cast<std::size_t>(r.experts), width = static_cast<std::size_t>(r.layers) * n;
    std::vector<int> bytes(256);
    std::vector<double> totals(256, 0);
    std::iota(bytes.begin(), bytes.end(), 0);
    const auto count = [&](int byte, std::size_t e) {
        return static_cast<double>(
            r.byte_load[static_cast<std::size_t>(byte) * width + static_cast<std::size_t>(layer) * n + e]);
    };
    for (const int b : bytes)
        for (std::size_t e = 0; e < n; ++e) totals[static_cast<std::size_t>(b)] += count(b, e);
    std::stable_sort(bytes.begin(), bytes.end(), [&](int a, int b) {
        return totals[static_cast<std::size_t>(a)] > totals[static_cast<std::size_t>(b)];
    });
    std::vector<std::string> rows, columns;
    std::vector<std::vector<double>> values;
    for (std::size_t e = 0; e < n; ++e) columns.push_back(std::to_string(e));
    for (int i = 0; i < 24 && totals[static_cast<std::size_t>(bytes[static_cast<std::size_t>(i)])] > 0; ++i) {
        const int b = bytes[static_cast<std::size_t>(i)];
        rows.push_back(byte_name(b));
        values.emplace_back();
        // Of the tokens with this byte, the part that visited the expert.
        for (std::size_t e = 0; e < n; ++e)
            values.back().push_back(count(b, e) * r.top_k / totals[static_cast<std::size_t>(b)]);
    }
    return heat_map(rows, columns, values, 1, "expert");
}

std::string row(std::initializer_list<std::string> cells, const char* tag = "td") {
    std::string text = "<tr>";
    for (const auto& c : cells) text += format("<%s>%s</%s>", tag, c.c_str(), tag);
    return text + "</tr>";
}

std::string configuration_table(const run_figures& m, const run_figures& d) {
    std::string t = "<div class=\"wide\"><table>" + row({"", "mixture", "dense twin"}, "th");
    t += row({"experts, chosen per token", format("%d, %d", m.experts, m.top_k), "1, 1"});
    t += row({"width of an expert", std::to_string(m.ffn), std::to_string(d.ffn)});
    t += row({"parameters", grouped(m.parameters), grouped(d.parameters)});
    t += row({"used by one token", grouped(m.active), grouped(d.active)});
    t += row({"FLOP per token, forward", grouped(m.flops), grouped(d.flops)});
    t += row({"held-out loss, nats per byte", format("%.4f", m.final_loss), format("%.4f", d.final_loss)});
    t += row({"bits per byte", format("%.3f", m.final_loss / 0.6931471805599453),
              format("%.3f", d.final_loss / 0.6931471805599453)});
    t += row({"seconds of training", format("%.1f", m.seconds), format("%.1f", d.seconds)});
    t += row({"tokens per second, one thread", grouped(static_cast<std::int64_t>(m.tokens_per_second)),
              grouped(static_cast<std::int64_t>(d.tokens_per_second))});
    return t + "</table></div>";
}

std::string balance_table(const std::vector<const run_figures*>& runs) {
    std::string t = "<div class=\"wide\"><table>" +
                    row({"run", "seed", "block", "MaxVio", "entropy", "dead", "starved", "held-out loss"}, "th");
    for (const run_figures* r : runs)
        for (std::size_t l = 0; l < r->balances.size(); ++l) {
            const auto& b = r->balances[l];
            t += row({l == 0 ? escaped(r->name) + format(", %d steps", r->steps) : "",
                      l == 0 ? std::to_string(r->seed) : "", std::to_string(l), format("%.2f", b.max_violation),
                      format("%.3f", b.entropy), std::to_string(b.dead), std::to_string(b.starved),
                      l == 0 ? format("%.4f", r->final_loss) : ""});
        }
    return t + "</table></div>";
}

}  // namespace

std::string report_page(const figures& all) {
    const run_figures &m = *all.find("mixture"), &d = *all.find("dense");
    const run_figures* const free = all.find("unbalanced");
    int runs[2] = {}, collapsed[2] = {};
    std::vector<const run_figures*> contrast{&m};
    if (free) contrast.push_back(free);
    for (const auto& r : all.runs)
        for (int i = 0; i < 2; ++i)
            if (r.role == (i == 0 ? "contrast_k2" : "contrast_k1")) {
                ++runs[i];
                collapsed[i] += r.collapsed();
                contrast.push_back(&r);
            }

    std::string page =
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
        "content=\"width=device-width,initial-scale=1\">\n<title>gatefold: a mixture of experts learns to "
        "write</title>\n"
        "<style>" +
        std::string(style) + "</style></head>\n<body><main>\n<h1>A mixture of experts and its dense twin</h1>\n";
    page += "<p class=\"soft\">" + escaped(all.text) + ": " + grouped(static_cast<std::int64_t>(all.training_bytes)) +
            " bytes to train on, " + grouped(static_cast<std::int64_t>(all.held_out_bytes)) +
            " held out (the last tenth of each file). Seed " + std::to_string(all.seed) +
            format(", %d windows of %d bytes per step, hidden %d, %d blocks. %s kernels, %.0f s in all.</p>\n",
                   all.sequences, all.context, all.hidden, m.layers, all.tier.c_str(), all.seconds);

    page += "<div class=\"tiles\">" + tile(format("%.4f", m.final_loss), "held-out loss, mixture") +
            tile(format("%.4f", d.final_loss), "held-out loss, dense twin");
    if (free) page += tile(format("%.4f", free->final_loss), "held-out loss, mixture without balancing");
    page += tile(format("%.2f", m.worst_violation()), "MaxVio of the mixture, worst block");
    if (free) page += tile(format("%.2f", free->worst_violation()), "MaxVio without balancing");
    if (runs[0] > 0)
        page += tile(format("%d of %d", collapsed[0], runs[0]), "seeds collapse without balancing, k&nbsp;=&nbsp;2") +
                tile(format("%d of %d", collapsed[1], runs[1]), "seeds collapse without balancing, k&nbsp;=&nbsp;1");
    page += "</div>\n";

    page +=
        "<h2>What is compared</h2><p>Both models use the same number of parameters for one token, but for the "
        "router. The mixture keeps more of them in memory: which part a token uses is chosen token by token. "
        "Learning rate, batches and steps are the same.</p>" +
        configuration_table(m, d);

    page += "<h2>Loss</h2><div class=\"plots\">";
    std::vector<line_of_plot> curves{{"mixture", "var(--a)", smoothed(m.training_loss)},
                                     {"dense twin", "var(--b)", smoothed(d.training_loss)}};
    std::vector<line_of_plot> held{{"mixture", "var(--a)", held_out(m), false, true},
                                   {"dense twin", "var(--b)", held_out(d), false, true}};
    if (free) {
        curves.push_back({"without balancing", "var(--c)", smoothed(free->training_loss), false, false, true});
        held.push_back({"without balancing", "var(--c)", held_out(*free), false, true, true});
    }
    page += figure("While training, nats per byte", line_plot(curves, "step", "training loss"));
    page += figure("On text that was never trained on", line_plot(held, "step", "held-out loss")) + "</div>";
    page +=
        "<p class=\"soft\">Licences repeat each other, so held-out text is easier here than text in general; both "
        "models have the same advantage.</p>";

    page +=
        "<h2>Load of the experts over time</h2><p>The share of each expert in the choices of the steps between two "
        "points; an even load is 12.5 % each.</p><div class=\"plots\">";
    for (int l = 0; l < m.layers; ++l) {
        page += figure(format("With balancing, block %d", l), load_plot(m, l));
        if (free) page += figure(format("Without balancing, block %d", l), load_plot(*free, l));
    }
    page += "</div>";

    page +=
        "<h2>What the router looks at</h2><p>Of the held-out tokens with the byte on the left, the part that "
        "visited each expert: two per token. Experts tell bytes and their neighbourhood apart; do not look for "
        "topics.</p><div class=\"plots\">";
    for (int l = 0; l < m.layers; ++l) page += figure(format("Block %d", l), byte_map(m, l));
    page += "</div>";

    page +=
        "<h2>Balance</h2><p>MaxVio: the largest load over the mean, less 1. Entropy: 1 is even. Dead: never chosen; "
        "starved: less than a hundredth of the mean load. All over the held-out text. A run has collapsed if some "
        "block has a MaxVio above 2 or a starved expert.</p>" +
        balance_table(contrast);
    if (free)
        page += free->final_loss < m.final_loss
                    ? "<p>In this run the unbalanced mixture has the lower loss: balancing spreads the load, which "
                      "matters when experts live on different machines; it does not lower the loss by itself.</p>"
                    : "<p>In this run the unbalanced mixture has the higher loss; other seeds may say otherwise.</p>";

    if (!all.sample.empty())
        page += "<h2>What the mixture writes</h2><p class=\"soft\">Temperature 0.7, top-k 40.</p><pre><b>" +
                escaped(all.prompt) + "</b>" + escaped(all.sample) + "</pre>";
    return page + "</main></body></html>\n";
}

}  // namespace train_text
