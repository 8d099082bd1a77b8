// Trains a byte-level language model with a mixture of experts next to its dense twin of equal active size, shows what
// balancing is for, and writes some text. `train_text --help` lists the options.
// ctest: --steps 20 --contrast 1 --generate 40 --report report.html --json figures.json --save run.safetensors
#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <functional>
#include <stdexcept>
#include <thread>
#include <vector>

#include <unistd.h>

#include <gatefold/core/macros.hpp>
#include <gatefold/io/file.hpp>
#include <gatefold/train/checkpoint.hpp>

#include "options.hpp"
#include "report.hpp"
#include "run.hpp"

namespace {

using namespace train_text;
namespace gf = gatefold;
using clock_type = std::chrono::steady_clock;

std::atomic<bool> stop{false};
volatile std::sig_atomic_t interrupted = 0;

extern "C" void on_interrupt(int) {
    interrupted = 1;
    stop = true;
}

double seconds_since(clock_type::time_point t) { return std::chrono::duration<double>(clock_type::now() - t).count(); }

std::string with_spaces(std::int64_t n) {
    const std::string digits = std::to_string(n);
    std::string text;
    for (std::size_t i = 0; i < digits.size(); ++i) {
        if (i > 0 && (digits.size() - i) % 3 == 0) text += " ";
        text += digits[i];
    }
    return text;
}

std::string clock_text(double seconds) {
    char text[32];
    const int all = static_cast<int>(seconds + 0.5);
    std::snprintf(text, sizeof text, "%d:%02d", all / 60, all % 60);
    return text;
}

/// Runs that go on side by side, each on a thread of its own.
class crew {
public:
    crew(std::vector<run*> runs, int workers) : runs_(std::move(runs)), errors_(runs_.size()) {
        const auto count = (std::min)(static_cast<std::size_t>(workers), runs_.size());
        for (std::size_t i = 0; i < count; ++i)
            threads_.emplace_back([this] {
                for (std::size_t r = next_++; r < runs_.size() && !stop; r = next_++) {
                    try {
                        runs_[r]->train(stop);
                    } catch (...) {
                        errors_[r] = std::current_exception();
                        stop = true;
                    }
                }
            });
    }
    ~crew() {
        for (auto& t : threads_) t.join();
    }
    /// Shows progress until all are done or stopped; throws what a run threw.
    void watch(const std::function<void(double)>& show) {
        const auto began = clock_type::now();
        while (!stop && !std::all_of(runs_.begin(), runs_.end(), [](run* r) { return r->finished.load(); })) {
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            show(seconds_since(began));
        }
        for (auto& t : threads_) t.join();
        threads_.clear();
        for (const auto& e : errors_)
            if (e) std::rethrow_exception(e);
    }

private:
    std::vector<run*> runs_;
    std::vector<std::exception_ptr> errors_;
    std::atomic<std::size_t> next_{0};
    std::vector<std::thread> threads_;
};

/// One line that is written over on a terminal, and every tenth of the work elsewhere.
class progress_line {
public:
    void show(const std::string& text, double part) {
        if (terminal_) {
            std::printf("\r%-78s", text.c_str());
            std::fflush(stdout);
            dirty_ = true;
        } else if (part >= next_) {
            std::printf("%s\n", text.c_str());
            std::fflush(stdout);
            while (next_ <= part) next_ += 0.1;
        }
    }
    void end() {
        if (dirty_) std::printf("\n");
        dirty_ = false;
        next_ = 0.1;
    }

private:
    bool terminal_ = isatty(STDOUT_FILENO) != 0, dirty_ = false;
    double next_ = 0.1;
};

void show_configuration(const figures& all, const corpus& text, const run_figures& mixture, const run_figures& dense) {
    std::printf("text        %s: %s bytes to train on, %s held out (the last tenth of each file)\n",
                text.description.c_str(), with_spaces(static_cast<std::int64_t>(text.training.size())).c_str(),
                with_spaces(static_cast<std::int64_t>(text.held_out.size())).c_str());
    std::printf("model       bytes in, bytes out; hidden %d, %d blocks, 4 heads, context %d; %d windows per step\n",
                hidden, layers, context, sequences);
    std::printf("machine     %s kernels, %d run%s side by side, one thread each\n\n", all.tier.c_str(), all.workers,
                all.workers == 1 ? "" : "s");
    const auto row = [](const char* what, const std::string& a, const std::string& b) {
        std::printf("%-28s %16s %16s\n", what, a.c_str(), b.c_str());
    };
    row("", "mixture", "dense twin");
    row("experts, chosen per token", std::to_string(mixture.experts) + ", " + std::to_string(mixture.top_k), "1, 1");
    row("width of an expert", std::to_string(mixture.ffn), std::to_string(dense.ffn));
    row("parameters", with_spaces(mixture.parameters), with_spaces(dense.parameters));
    row("  used by one token", with_spaces(mixture.active), with_spaces(dense.active));
    row("FLOP per token, forward", with_spaces(mixture.flops), with_spaces(dense.flops));
    std::printf("\n");
    std::fflush(stdout);
}

void show_load(const run_figures& r) {
    for (std::size_t l = 0; l < r.balances.size(); ++l) {
        std::printf("  block %zu  MaxVio %4.2f  entropy %5.3f  dead %d  share of each expert, %%:", l,
                    r.balances[l].max_violation, r.balances[l].entropy, r.balances[l].dead);
        std::int64_t total = 0;
        for (int e = 0; e < r.experts; ++e)
            total += r.load[l * static_cast<std::size_t>(r.experts) + static_cast<std::size_t>(e)];
        for (int e = 0; e < r.experts; ++e)
            std::printf(
                " %4.1f",
                100.0 *
                    static_cast<double>(r.load[l * static_cast<std::size_t>(r.experts) + static_cast<std::size_t>(e)]) /
                    static_cast<double>(total));
        std::printf("\n");
    }
}

/// The long runs: their text of progress.
std::string pair_text(const std::vector<run*>& runs, double eta, double rate) {
    char text[200];
    std::string line;
    for (const run* r : runs) {
        std::snprintf(text, sizeof text, "%s%s %d/%d %.3f", line.empty() ? "" : "  ", r->figures.name.c_str(),
                      r->step.load(), r->figures.steps, r->recent.load());
        line += text;
    }
    std::snprintf(text, sizeof text, "  %.1fk tokens/s  %s left", rate / 1000, clock_text(eta).c_str());
    return line + text;
}

void save_runs(const std::string& path, run& mixture, run& dense, const options& o, const corpus& text) {
    gf::safetensors_writer file;
    mixture.add_to(file, "mixture.");
    dense.add_to(file, "dense.");
    file.write(path, {{"format", "gatefold train_text 1"},
                      {"seed", std::to_string(o.seed)},
                      {"steps", std::to_string(o.steps)},
                      {"text", std::to_string(text.fingerprint() >> 1)}});
}

std::string printable(const std::string& bytes) {
    std::string text;
    for (const char c : bytes) text += (c >= ' ' && c <= '~') || c == '\n' ? c : c == '\t' ? ' ' : '?';
    return text;
}

int work(options o) {
    const auto began = clock_type::now();
    corpus text;
    gf::safetensors_file saved;
    if (!o.load.empty()) {
        saved = gf::safetensors_file::open(o.load);
        const std::string* format = saved.find_metadata("format");
        if (!format || *format != "gatefold train_text 1")
            throw std::runtime_error(o.load + ": not a file that train_text saved");
        const auto seed = static_cast<std::uint64_t>(gf::read_number(saved, "seed"));
        const auto steps = static_cast<int>(gf::read_number(saved, "steps"));
        if (o.seed_given && o.seed != seed && !o.only_generate)
            throw std::runtime_error(o.load + ": was trained with --seed " + std::to_string(seed));
        if (o.steps_given && o.steps != steps && !o.only_generate)
            throw std::runtime_error(o.load + ": was trained with --steps " + std::to_string(steps));
        if (!o.only_generate) o.seed = seed;
        o.steps = steps;
    }
    if (o.only_generate) {
        const auto mixture = make_mixture({"mixture", "mixture", o.seed, o.steps, 0, 1}, text);
        mixture->take_from(saved, "mixture.");
        std::printf("%s\n", printable(o.prompt + mixture->generate(o.prompt, o.generate, o.seed)).c_str());
        return 0;
    }

    text = read_corpus(o.text, context);
    if (!o.load.empty() && static_cast<std::uint64_t>(gf::read_number(saved, "text")) != text.fingerprint() >> 1)
        throw std::runtime_error(o.load + ": was trained on another text; name it with --text");
    for (const std::string* path : {&o.save, &o.report, &o.json}) {
        // Better now than after two minutes.
        const std::string folder = path->find('/') == path->npos ? "." : path->substr(0, path->rfind('/') + 1);
        if (!path->empty() && access(folder.c_str(), W_OK) != 0)
            throw std::runtime_error(*path + ": the folder cannot be written to");
    }

    figures all;
    all.text = text.description;
    all.tier = GATEFOLD_TEXT(GATEFOLD_TIER_ISA);
    all.training_bytes = text.training.size();
    all.held_out_bytes = text.held_out.size();
    all.seed = o.seed;
    all.context = context;
    all.sequences = sequences;
    all.hidden = hidden;
    all.workers = o.threads > 0 ? o.threads : static_cast<int>((std::max)(1u, std::thread::hardware_concurrency()));

    constexpr double balance = 0.01;
    std::vector<std::unique_ptr<run>> runs;
    runs.push_back(make_mixture({"mixture", "mixture", o.seed, o.steps, balance, 1}, text));
    runs.push_back(make_dense({"dense", "dense", o.seed, o.steps, 0, 1}, text));
    if (!o.load.empty()) {
        runs[0]->take_from(saved, "mixture.");
        runs[1]->take_from(saved, "dense.");
    }
    if (o.contrast > 0) {
        const int fewer = (std::max)(1, o.steps * 2 / 5);
        runs.push_back(make_mixture({"unbalanced", "unbalanced", o.seed, o.steps, 0, 1}, text));
        for (int i = 0; i < o.contrast; ++i) {
            const std::uint64_t seed = o.seed + static_cast<std::uint64_t>(i);
            runs.push_back(make_mixture({"k = 2", "contrast_k2", seed, fewer, 0, 1}, text));
            runs.push_back(make_top1({"k = 1", "contrast_k1", seed, fewer, 0, 1}, text));
        }
    }
    show_configuration(all, text, runs[0]->figures, runs[1]->figures);

    std::vector<run*> everything;
    for (const auto& r : runs) everything.push_back(r.get());
    std::int64_t total = 0, at_start = 0;
    for (const run* r : everything) {
        total += r->figures.steps;
        at_start += r->figures.done;
    }
    progress_line line;
    const auto training_began = clock_type::now();
    const auto watch = [&](const std::vector<run*>& now) {
        crew workers(now, all.workers);
        workers.watch([&](double) {
            std::int64_t done = 0, here = 0, here_total = 0;
            for (const run* r : everything) done += r->step;
            for (const run* r : now) here += r->step, here_total += r->figures.steps;
            const double rate = static_cast<double>(done - at_start) / seconds_since(training_began);
            if (done == at_start) return;
            const double left = static_cast<double>(total - done) / rate, tokens = rate * sequences * context;
            const double part = static_cast<double>(here) / static_cast<double>(here_total);
            if (now.size() <= 2) {
                line.show(pair_text(now, left, tokens), part);
            } else {
                char buffer[160];
                std::snprintf(buffer, sizeof buffer, "%lld of %lld steps in %zu runs   %.1fk tokens/s   %s left",
                              static_cast<long long>(here), static_cast<long long>(here_total), now.size(),
                              tokens / 1000, clock_text(left).c_str());
                line.show(buffer, part);
            }
        });
        line.end();
    };

    const auto leave_early = [&] {
        const std::string path = o.save.empty() ? "train_text.safetensors" : o.save;
        save_runs(path, *runs[0], *runs[1], o, text);
        std::printf("stopped at step %d and %d; saved to %s, --load %s goes on from there\n", runs[0]->figures.done,
                    runs[1]->figures.done, path.c_str(), path.c_str());
        return 130;
    };

    std::printf("mixture and dense twin, the same %d steps on the same bytes\n", o.steps);
    watch({everything.begin(), everything.begin() + 2});
    if (interrupted) return leave_early();
    const run_figures &mixture = runs[0]->figures, &dense = runs[1]->figures;
    std::printf(
        "held-out loss, nats per byte: mixture %.4f, dense twin %.4f (%.1f and %.1f s, %.1fk and %.1fk tokens/s)\n",
        mixture.final_loss, dense.final_loss, mixture.seconds, dense.seconds, mixture.tokens_per_second / 1000,
        dense.tokens_per_second / 1000);
    std::printf("load of the mixture's experts over the held-out text (MaxVio 0: even)\n");
    show_load(mixture);
    if (!o.save.empty()) save_runs(o.save, *runs[0], *runs[1], o, text);

    if (o.contrast > 0) {
        std::printf("\nthe same without the balancing loss, and %d seeds of %d steps each with k = 2 and k = 1\n",
                    o.contrast, runs[3]->figures.steps);
        watch({everything.begin() + 2, everything.end()});
        if (interrupted) return leave_early();
        const run_figures& free = runs[2]->figures;
        std::printf("held-out loss without balancing %.4f, with it %.4f\n", free.final_loss, mixture.final_loss);
        show_load(free);
        for (const char* role : {"contrast_k2", "contrast_k1"}) {
            int collapsed = 0;
            std::printf("  %s without balancing, largest MaxVio and starved experts by seed:", role + 9);
            for (const auto& r : runs)
                if (r->figures.role == role) {
                    std::printf("  %.2f/%d", r->figures.worst_violation(), r->figures.starved());
                    collapsed += r->figures.collapsed();
                }
            std::printf("   %d of %d collapsed\n", collapsed, o.contrast);
        }
        std::printf(
            "  collapsed: in some block an expert has more than 3 times the mean load, or less than 1%% of it\n");
    }

    all.prompt = o.prompt;
    if (o.generate > 0) {
        all.sample = printable(runs[0]->generate(o.prompt, o.generate, o.seed));
        std::printf("\nthe mixture goes on from \"%s\" (temperature 0.7, top-k 40):\n\n%s%s\n\n",
                    printable(o.prompt).c_str(), printable(o.prompt).c_str(), all.sample.c_str());
    }
    for (const auto& r : runs) all.runs.push_back(r->figures);
    all.seconds = seconds_since(began);
    if (!o.report.empty()) gf::write_file(o.report, report_page(all));
    if (!o.json.empty()) gf::write_file(o.json, json_of(all));
    std::printf("%s in all", clock_text(all.seconds).c_str());
    for (const std::string* path : {&o.report, &o.json, &o.save})
        if (!path->empty()) std::printf(", wrote %s", path->c_str());
    std::printf("\n");
    return 0;
}

}  // namespace

int main(int count, char** arguments) {
    try {
        const options o = parse(count, arguments);
        if (o.help) {
            std::fputs(help_text, stdout);
            return 0;
        }
        struct sigaction action = {};
        action.sa_handler = on_interrupt;
        action.sa_flags = static_cast<int>(SA_RESETHAND);  // a second Ctrl-C ends the program at once
        sigaction(SIGINT, &action, nullptr);
        sigaction(SIGTERM, &action, nullptr);
        return work(o);
    } catch (const usage_error& e) {
        std::fprintf(stderr, "train_text: %s\n", e.message.c_str());
        return 2;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "train_text: %s\n", e.what());
        return 1;
    }
}
