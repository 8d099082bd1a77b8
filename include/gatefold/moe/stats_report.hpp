// Routing metrics for people and for programs: a table of one line per layer, and JSON.
#pragma once

#include <cstdio>
#include <span>
#include <string>

#include <gatefold/io/json_writer.hpp>
#include <gatefold/moe/stats_window.hpp>

namespace gatefold::inline v0 {

/// The mean over layers of the largest violations of the windows and of their calls, as arXiv 2408.15664 reports them.
struct mean_violations {
    double window = 0, batch = 0;
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// One figure of a report: its key in JSON, its column of the table, its value.
template <class F>
void for_each_figure(const routing_metrics& m, F&& f) {
    f("max_violation", "MaxVio", m.load.max_violation);
    f("min_violation", "MinVio", m.load.min_violation);
    f("mean_violation", "AvgVio", m.load.mean_violation);
    f("batch_violation", "batch", m.batch_violation);
    f("variation", "CV", m.load.variation);
    f("load_entropy", "H load", m.load.entropy);
    f("utilisation_entropy", "H use", m.utilisation_entropy);
    f("confidence_entropy", "H token", m.confidence_entropy);
    f("effective_experts", "eff.", m.load.effective_experts);
    f("participation", "part.", m.load.participation);
    f("dead", "dead", static_cast<double>(m.load.dead));
    f("starved", "starved", static_cast<double>(m.load.starved));
    f("importance_variation", "CV imp.", m.importance.variation);
    f("experts_per_token", "k", m.experts_per_token);
    f("drop_rate", "dropped", m.drop_rate);
    f("usage", "filled", m.usage);
    f("logit_rms", "z rms", m.logit_rms);
    f("logit_max", "z max", m.logit_max);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// The means over the layers.
inline mean_violations violations_of(std::span<const routing_metrics> layers) {
    mean_violations m;
    for (const routing_metrics& layer : layers) {
        m.window += layer.load.max_violation / static_cast<double>(layers.size());
        m.batch += layer.batch_violation / static_cast<double>(layers.size());
    }
    return m;
}

/// A table with a header and a line per layer.
inline std::string routing_table(std::span<const routing_metrics> layers) {
    std::string text = "layer";
    char cell[40];
    detail::for_each_figure({}, [&](const char*, const char* column, double) {
        std::snprintf(cell, sizeof cell, " %8s", column);
        text += cell;
    });
    text += '\n';
    for (std::size_t i = 0; i < layers.size(); ++i) {
        std::snprintf(cell, sizeof cell, "%5zu", i);
        text += cell;
        detail::for_each_figure(layers[i], [&](const char*, const char*, double value) {
            std::snprintf(cell, sizeof cell, " %8.4g", value);
            text += cell;
        });
        text += '\n';
    }
    return text;
}

/// {"layers": [{"steps": …, "tokens": …, "max_violation": …, …}, …], "mean_max_violation": …, "mean_batch_violation":
/// …}, every number to the last digit.
inline std::string routing_json(std::span<const routing_metrics> layers, int indent = 0) {
    json_writer json(indent);
    json.begin_object().key("layers").begin_array();
    for (const routing_metrics& m : layers) {
        json.begin_object().member("steps", m.steps).member("tokens", m.tokens);
        detail::for_each_figure(m, [&](const char* key, const char*, double value) { json.member(key, value); });
        json.end_object();
    }
    const mean_violations mean = violations_of(layers);
    json.end_array().member("mean_max_violation", mean.window).member("mean_batch_violation", mean.batch).end_object();
    return json.text();
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
