#include <gatefold/io/json_writer.hpp>

#include "report.hpp"

namespace train_text {
namespace {

using gatefold::json_writer;

template <class T>
void numbers(json_writer& w, const char* key, const std::vector<T>& values) {
    w.key(key).begin_array();
    for (const T v : values) w.value(v);
    w.end_array();
}

void one_run(json_writer& w, const run_figures& r) {
    w.begin_object();
    w.member("name", r.name.c_str()).member("role", r.role.c_str()).member("seed", r.seed);
    w.member("steps", r.done).member("experts", r.experts).member("top_k", r.top_k).member("ffn", r.ffn);
    w.member("balancing_coefficient", r.balance).member("parameters", r.parameters);
    w.member("active_parameters", r.active).member("flops_per_token", r.flops);
    w.member("held_out_loss", r.final_loss).member("seconds", r.seconds);
    w.member("tokens_per_second", r.tokens_per_second);
    if (r.routed()) {
        w.member("collapsed", r.collapsed());
        w.key("blocks").begin_array();
        for (std::size_t l = 0; l < r.balances.size(); ++l) {
            const auto n = static_cast<std::size_t>(r.experts);
            const auto first = r.load.begin() + static_cast<std::ptrdiff_t>(l * n);
            w.begin_object().member("max_violation", r.balances[l].max_violation);
            w.member("entropy", r.balances[l].entropy).member("dead", r.balances[l].dead);
            w.member("starved", r.balances[l].starved);
            numbers(w, "load", std::vector<std::int64_t>(first, first + static_cast<std::ptrdiff_t>(n)));
            w.end_object();
        }
        w.end_array();
        w.key("load_over_time").begin_array();
        for (const auto& p : r.loads) {
            w.begin_object().member("step", p.step);
            numbers(w, "counts", p.counts);
            w.end_object();
        }
        w.end_array();
    }
    numbers(w, "training_loss", r.training_loss);
    w.key("held_out").begin_array();
    for (const auto& p : r.held_out) w.begin_object().member("step", p.step).member("loss", p.loss).end_object();
    w.end_array();
    w.end_object();
}

}  // namespace

std::string json_of(const figures& all) {
    json_writer w(1);
    w.begin_object();
    w.member("text", all.text.c_str()).member("training_bytes", all.training_bytes);
    w.member("held_out_bytes", all.held_out_bytes).member("kernels", all.tier.c_str()).member("seed", all.seed);
    w.member("context", all.context).member("windows_per_step", all.sequences).member("hidden", all.hidden);
    w.member("runs_side_by_side", all.workers).member("seconds", all.seconds);
    w.key("runs").begin_array();
    for (const auto& r : all.runs) one_run(w, r);
    w.end_array();
    for (const char* role : {"contrast_k2", "contrast_k1"}) {
        int runs = 0, collapsed = 0;
        for (const auto& r : all.runs)
            if (r.role == role) ++runs, collapsed += r.collapsed();
        if (runs > 0) w.key(role).begin_object().member("runs", runs).member("collapsed", collapsed).end_object();
    }
    w.member("prompt", all.prompt.c_str()).member("sample", all.sample.c_str());
    w.end_object();
    return w.text() + "\n";
}

}  // namespace train_text
