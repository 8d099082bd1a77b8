// "Experts collapse without balancing": how often, what it costs, what helps, and what the help costs.
//
// A small decoder with one of eight experts per token learns a made-up language: without balancing, with a
// load-balancing loss of several strengths, with the loss-free bias at two rates; then noisy top-k with and without its
// noise. Several seeds each, all of them counted.
// ctest: --seeds 5 --steps 300 --svg collapse.svg
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "../common/plot.hpp"
#include "../common/program.hpp"
#include "run.hpp"

namespace {

using namespace collapse;
using program::spread, program::spread_of;

/// What every seed made of one plan.
struct outcome {
    plan how;
    std::vector<figures> seeds;

    spread of(double figures::*field) const {
        std::vector<double> values;
        for (const figures& f : seeds) values.push_back(f.*field);
        return spread_of(values);
    }
    int collapsed() const {
        int n = 0;
        for (const figures& f : seeds) n += f.collapsed();
        return n;
    }
};

std::string text(const spread& s, const char* pattern) {
    char line[80];
    std::snprintf(line, sizeof line, pattern, s.mean, s.low, s.high);
    return line;
}

void show(const outcome& o) {
    int dead = 0, starved = 0;
    for (const figures& f : o.seeds) dead += f.dead, starved += f.starved;
    std::printf("   %-12s %s  %s  %s  %4d %7d   %s   %d of %zu", o.how.name,
                text(o.of(&figures::violation), "%5.2f (%4.2f..%4.2f)").c_str(),
                text(o.of(&figures::step_violation), "%5.2f").c_str(),
                text(o.of(&figures::entropy), "%5.3f (%5.3f..%5.3f)").c_str(), dead, starved,
                text(o.of(&figures::loss), "%6.4f (%6.4f..%6.4f)").c_str(), o.collapsed(), o.seeds.size());
    const char* before = ": seeds ";
    for (std::size_t i = 0; i < o.seeds.size(); ++i)
        if (o.seeds[i].collapsed()) std::printf("%s%zu", before, i + 1), before = " ";
    std::printf("\n");
}

/// Held-out loss above the lowest of all runs, so that differences can be seen.
std::string loss_plot(const std::vector<outcome>& all) {
    double lowest = all[0].of(&figures::loss).low;
    for (const outcome& o : all) lowest = std::min(lowest, o.of(&figures::loss).low);
    std::vector<std::string> names;
    std::vector<std::vector<double>> mean, low, high;
    for (const outcome& o : all) {
        const spread s = o.of(&figures::loss);
        names.push_back(o.how.name);
        mean.push_back({s.mean - lowest});
        low.push_back({s.low - lowest});
        high.push_back({s.high - lowest});
    }
    return plot::bar_plot(names, {"loss"}, mean, low, high, "loss above the lowest");
}

std::string violation_plot(const std::vector<outcome>& all) {
    std::vector<std::string> names;
    std::vector<std::vector<double>> mean, low, high;
    for (const outcome& o : all) {
        const spread a = o.of(&figures::violation), b = o.of(&figures::step_violation);
        names.push_back(o.how.name);
        mean.push_back({a.mean, b.mean});
        low.push_back({a.low, b.low});
        high.push_back({a.high, b.high});
    }
    return plot::bar_plot(names, {"the last fifth as a whole", "step by step"}, mean, low, high, "MaxVio");
}

std::string course_plot(const std::vector<outcome>& all, int steps) {
    std::vector<plot::line_of_plot> lines;
    for (const std::size_t i : {0u, 2u, 3u, 5u, 6u}) {
        std::vector<std::pair<double, double>> points;
        const std::size_t n = all[i].seeds[0].course.size();
        for (std::size_t part = 0; part < n; ++part) {
            double sum = 0;
            for (const figures& f : all[i].seeds) sum += f.course[part];
            points.emplace_back(static_cast<double>(part + 1) * steps / static_cast<double>(n),
                                sum / static_cast<double>(all[i].seeds.size()));
        }
        lines.push_back({all[i].how.name, "var(--e" + std::to_string(i) + ")", points});
    }
    return plot::line_plot(lines, "step", "MaxVio of single steps");
}

}  // namespace

int main(int count, char** values) try {
    program::arguments given(count, values, "[--seeds N] [--steps N] [--svg FILE]");
    const int seeds = given.number("--seeds", 8, 2, 1000), steps = given.number("--steps", 500, 40, 100000);
    const std::string svg = given.text("--svg");
    given.done();

    const auto began = std::chrono::steady_clock::now();
    std::vector<outcome> all{{{.name = "none"}, {}},
                             {{.name = "loss 0.001", .coefficient = 1e-3}, {}},
                             {{.name = "loss 0.01", .coefficient = 1e-2}, {}},
                             {{.name = "loss 0.1", .coefficient = 1e-1}, {}},
                             {{.name = "loss 1", .coefficient = 1}, {}},
                             {{.name = "bias 0.001", .rate = 1e-3}, {}},
                             {{.name = "bias 0.1", .rate = 1e-1}, {}},
                             {{.name = "no noise"}, {}},
                             {{.name = "noise", .noise = true}, {}}};
    constexpr std::size_t top1_plans = 7;
    for (outcome& o : all) o.seeds.resize(static_cast<std::size_t>(seeds));
    program::side_by_side(static_cast<int>(all.size()) * seeds, [&](int i) {
        const auto p = static_cast<std::size_t>(i / seeds), s = static_cast<std::size_t>(i % seeds);
        all[p].seeds[s] = (p < top1_plans ? train_top1 : train_noisy)(all[p].how, s + 1, steps);
    });
    const std::vector<outcome> top1(all.begin(), all.begin() + top1_plans);
    const outcome &none = all[0], &strong = all[3], &strongest = all[4], &bias = all[5], &fast = all[6];
    const outcome &silent = all[7], &noisy = all[8];

    std::printf(
        "Eight experts of width 32, one per token, in a decoder of width 32; seeds 1 to %d, %d steps of 512 "
        "symbols\n\n",
        seeds, steps);
    std::printf(
        "   balancing    MaxVio              by step  entropy               dead starved   held-out loss              "
        "collapsed\n");
    for (const outcome& o : top1) show(o);
    std::printf(
        "\n   Means, in brackets the lowest and highest seed. MaxVio: largest load over the mean, less 1, of the last\n"
        "   fifth of the steps as a whole; by step: of each of these steps on its own, averaged. Entropy of the load: "
        "1 is\n"
        "   even. Dead: experts never chosen, starved: less than a hundredth of the mean load, added over all seeds.\n"
        "   Collapsed: MaxVio above 2 or a starved expert. Loss in nats per symbol.\n\n");

    std::printf("Noisy top-k, two experts per token, gates of zero at the start\n\n");
    std::printf(
        "                entropy of the first %d steps   at the end             MaxVio at the end    held-out loss\n",
        steps / 20 + 1);
    for (const outcome* o : {&silent, &noisy})
        std::printf("   %-12s %s            %s   %s   %s\n", o->how.name,
                    text(o->of(&figures::early_entropy), "%5.3f (%5.3f..%5.3f)").c_str(),
                    text(o->of(&figures::entropy), "%5.3f (%5.3f..%5.3f)").c_str(),
                    text(o->of(&figures::violation), "%5.2f (%4.2f..%4.2f)").c_str(),
                    text(o->of(&figures::loss), "%6.4f (%6.4f..%6.4f)").c_str());

    const auto mean = [](const outcome& o, double figures::*field) { return o.of(field).mean; };
    const spread with_loss = strong.of(&figures::loss);
    bool falls = true;
    for (std::size_t i = 1; i <= 4; ++i)
        falls = falls && mean(all[i], &figures::violation) < mean(all[i - 1], &figures::violation) + 0.1;
    std::printf("\nWhat must hold\n");
    program::claims claims;
    claims.expect(2 * none.collapsed() >= seeds, "without balancing at least half of the seeds collapse");
    claims.expect(mean(none, &figures::violation) > mean(strong, &figures::violation) + 0.5,
                  "a loss of 0.1 lowers MaxVio by more than 0.5");
    claims.expect(mean(strong, &figures::violation) < 0.5 && strong.collapsed() == 0,
                  "with it MaxVio is below 0.5, and no seed collapses");
    claims.expect(falls, "the stronger the loss, the lower MaxVio");
    claims.expect(mean(none, &figures::loss) > std::min(with_loss.mean, mean(all[2], &figures::loss)),
                  "the collapsed models have the higher held-out loss");
    claims.expect(mean(strongest, &figures::loss) > with_loss.mean,
                  "a loss of 1 costs more than it brings: 0.1 is better");
    claims.expect(mean(bias, &figures::violation) < 0.8 && bias.collapsed() <= none.collapsed() / 2,
                  "the bias at 0.001 balances too: MaxVio below 0.8");
    claims.expect(mean(bias, &figures::loss) < with_loss.mean + 2 * (with_loss.high - with_loss.low),
                  "at a loss within the noise of the load-balancing loss");
    claims.expect(mean(fast, &figures::step_violation) > 1.2 * mean(bias, &figures::step_violation),
                  "at 0.1 it overshoots: even on the whole, uneven in every step");
    claims.expect(mean(noisy, &figures::early_entropy) > mean(silent, &figures::early_entropy) + 0.2,
                  "noise spreads the load early in training");

    const bool bias_is_better = mean(bias, &figures::loss) < with_loss.mean;
    std::printf(
        "\nHow to read this\n"
        "   The first expert to be a little better gets more tokens, learns faster, and gets more of them still;\n"
        "   the rest is never trained. How bad it gets depends on the seed, the initial router and the learning\n"
        "   rate: count seeds. The load-balancing loss pulls on the same weights as the task. Weak, it does too\n"
        "   little; strong, it decides by count instead of by content. The bias reaches the choice alone, so no\n"
        "   gradient is bent; but it needs as many steps as it takes to climb over the differences between scores,\n"
        "   and a rate that suits their size. In these short runs it ends %s the loss of 0.1 does,\n"
        "   by less than seeds differ. Even is no goal in itself: it keeps experts learning, and the machines that\n"
        "   hold them busy. Noise explores; it does not balance for good, and is off outside training.\n",
        bias_is_better ? "lower than" : "higher than");
    if (!svg.empty()) {
        plot::write_svg(svg, {violation_plot(top1), loss_plot(top1), course_plot(top1, steps)});
        std::printf("\nwrote %s", svg.c_str());
    }
    std::printf("\n%.1f s\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    return claims.result();
} catch (const std::exception& e) {
    std::fprintf(stderr, "collapse: %s\n", e.what());
    return 2;
}
