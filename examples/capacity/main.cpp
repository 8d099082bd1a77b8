// "Capacity keeps the load bounded and drops tokens": how many, which ones, and what it costs; and the router that is
// balanced by construction, with the price that it pays for that.
// ctest: --seeds 3 --steps 200 --svg capacity.svg
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "../common/plot.hpp"
#include "../common/program.hpp"
#include "run.hpp"

namespace {

using namespace capacity;
using program::spread, program::spread_of;

template <class T>
spread over(const std::vector<T>& seeds, double T::*field) {
    std::vector<double> values;
    for (const T& f : seeds) values.push_back(f.*field);
    return spread_of(values);
}

struct sweep {
    const char* name;
    double factor;
    std::vector<training_figures> seeds;
};

}  // namespace

int main(int count, char** values) try {
    program::arguments given(count, values, "[--seeds N] [--steps N] [--svg FILE]");
    const int seeds = given.number("--seeds", 5, 1, 1000), steps = given.number("--steps", 400, 40, 100000);
    const std::string svg = given.text("--svg");
    given.done();
    const auto began = std::chrono::steady_clock::now();

    // The factor E / k gives every expert room for every token: no limit at all.
    std::vector<sweep> all{
        {"0.5", 0.5, {}},   {"1", 1, {}}, {"1.25", 1.25, {}}, {"2", 2, {}}, {"4 = E/k", double{experts} / top_k, {}},
        {"dropless", 0, {}}};
    std::vector<std::array<priority_figures, 4>> priorities(static_cast<std::size_t>(seeds));
    for (sweep& s : all) s.seeds.resize(static_cast<std::size_t>(seeds));
    const int runs = static_cast<int>(all.size()) * seeds;
    program::side_by_side(runs + seeds, [&](int i) {
        const auto s = static_cast<std::size_t>(i % seeds);
        if (i < runs) {
            sweep& one = all[static_cast<std::size_t>(i / seeds)];
            one.seeds[s] = train(one.factor, s + 1, steps);
        } else
            priorities[s] = compare_priorities(s + 1, steps);
    });
    const choice_figures choice = expert_choice(1);

    std::printf(
        "Two of eight experts per token in a small decoder; seeds 1 to %d, %d steps of 512 symbols, C = ceil(T k / E "
        "factor)\n\n",
        seeds, steps);
    std::printf(
        "   factor      C   most rows   dropped at first, at the end   held-out loss with it     without a limit\n");
    bool bounded = true, falls = true, same = true;
    for (std::size_t i = 0; i < all.size(); ++i) {
        const sweep& s = all[i];
        std::int64_t most = 0;
        for (const training_figures& f : s.seeds) most = (std::max)(most, f.most_rows);
        const std::int64_t places = s.seeds[0].capacity;
        const spread first = over(s.seeds, &training_figures::first_dropped),
                     end = over(s.seeds, &training_figures::dropped),
                     with = over(s.seeds, &training_figures::capped_loss),
                     without = over(s.seeds, &training_figures::loss);
        std::printf("   %-8s %4s %11lld   %8.2f %%      %8.2f %%         %6.4f (%6.4f..%6.4f)   %6.4f (%6.4f..%6.4f)\n",
                    s.name, places > 0 ? std::to_string(places).c_str() : "-", static_cast<long long>(most),
                    100 * first.mean, 100 * end.mean, with.mean, with.low, with.high, without.mean, without.low,
                    without.high);
        bounded = bounded && (places == 0 || most <= places);
        if (i > 0) falls = falls && first.mean <= over(all[i - 1].seeds, &training_figures::first_dropped).mean;
    }
    for (std::size_t s = 0; s < static_cast<std::size_t>(seeds); ++s) {
        const auto &a = all[4].seeds[s].weights, &b = all[5].seeds[s].weights;
        same = same && a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0 &&
               all[4].seeds[s].loss == all[5].seeds[s].loss;
    }
    std::printf(
        "\n   Rows of an expert in any step; pairs of token and expert dropped in the first and last tenth of the "
        "steps.\n\n");

    std::printf("Who keeps a place, at a factor of 0.5, in models trained without a limit\n\n");
    std::printf("   priority       weight kept            pairs kept   tokens without expert   held-out loss\n");
    spread kept[4], loss[4];
    for (std::size_t p = 0; p < 4; ++p) {
        std::vector<priority_figures> seed;
        for (const auto& one : priorities) seed.push_back(one[p]);
        kept[p] = over(seed, &priority_figures::kept_weight);
        loss[p] = over(seed, &priority_figures::loss);
        std::printf("   %-12s %5.1f %% (%4.1f..%5.1f)   %8.1f %%   %12.1f %%          %6.4f (%6.4f..%6.4f)\n",
                    seed[0].name, 100 * kept[p].mean, 100 * kept[p].low, 100 * kept[p].high,
                    100 * over(seed, &priority_figures::kept_pairs).mean,
                    100 * over(seed, &priority_figures::untouched).mean, loss[p].mean, loss[p].low, loss[p].high);
    }
    bool more = true;
    for (const auto& one : priorities) more = more && one[2].kept_weight >= one[1].kept_weight;
    std::printf(
        "\n   Arrival: first choices in token order, then second ones. Importance (batch-prioritised routing): the "
        "same\n"
        "   with the most decided tokens first. Probability: the largest weights of each expert.\n\n");

    std::printf("Expert choice: each expert takes its best T k / E of %lld tokens\n\n",
                static_cast<long long>(2 * choice.earlier));
    std::printf("   MaxVio %g. Tokens by their number of experts:", choice.violation);
    for (std::size_t j = 0; j < choice.per_token.size(); ++j)
        if (choice.per_token[j] > 0) std::printf("  %zu: %lld", j, static_cast<long long>(choice.per_token[j]));
    std::printf(
        "\n   The later half of the tokens is replaced. Outputs of the earlier half that change: %lld of %lld; with "
        "top-k: %lld\n\n",
        static_cast<long long>(choice.changed_by_choice), static_cast<long long>(choice.earlier),
        static_cast<long long>(choice.changed_by_top_k));

    std::printf("What must hold\n");
    program::claims claims;
    claims.expect(bounded, "no expert ever has more than C rows");
    claims.expect(falls && all[0].seeds[0].first_dropped > 0, "the larger the factor, the fewer pairs are dropped");
    claims.expect(same, "a capacity that nothing exceeds trains the same weights as no capacity, to the bit");
    claims.expect(over(all[0].seeds, &training_figures::capped_loss).mean >
                      over(all[5].seeds, &training_figures::capped_loss).mean,
                  "at a factor of 0.5 the loss is higher than without a limit");
    claims.expect(more, "importance keeps at least the weight that arrival keeps, for every seed");
    claims.expect(kept[3].mean > kept[1].mean, "probability keeps more weight than arrival");
    claims.expect(choice.violation == 0, "expert choice: MaxVio is 0, exactly");
    claims.expect(choice.per_token.size() > 1 && choice.per_token[top_k] < 2 * choice.earlier,
                  "tokens have different numbers of experts");
    claims.expect(choice.changed_by_choice > 0, "a later token changes what earlier ones get: not for causal models");
    claims.expect(choice.changed_by_top_k == 0, "with top-k it changes nothing before it");

    std::printf(
        "\nHow to read this\n"
        "   A capacity exists for shapes that are fixed beforehand; a dropless layer needs none. What is dropped is "
        "not\n"
        "   computed: the token goes on with what its other expert and the residual give it. Drops are most frequent\n"
        "   before the router is balanced. A model trained under a tight capacity has learnt to live with it; taking "
        "the\n"
        "   limit away afterwards need not help. Which tokens lose matters more the tighter the capacity is.\n");
    if (!svg.empty()) {
        std::vector<std::string> names, histogram;
        std::vector<std::vector<double>> drops, tokens_of;
        for (const sweep& s : all) {
            names.push_back(s.name);
            drops.push_back({100 * over(s.seeds, &training_figures::first_dropped).mean,
                             100 * over(s.seeds, &training_figures::dropped).mean});
        }
        for (std::size_t j = 0; j < choice.per_token.size(); ++j) {
            histogram.push_back(std::to_string(j));
            tokens_of.push_back({static_cast<double>(choice.per_token[j])});
        }
        std::vector<std::vector<double>> weight, low, high;
        for (std::size_t p = 1; p < 4; ++p) {
            weight.push_back({100 * kept[p].mean});
            low.push_back({100 * kept[p].low});
            high.push_back({100 * kept[p].high});
        }
        plot::write_svg(svg,
                        {plot::bar_plot(names, {"first tenth of the steps", "last tenth"}, drops, {}, {}, "% dropped"),
                         plot::bar_plot({"arrival", "importance", "probability"}, {"weight"}, weight, low, high,
                                        "% of the weight kept"),
                         plot::bar_plot(histogram, {"tokens"}, tokens_of, {}, {}, "tokens with this many experts")});
        std::printf("\nwrote %s", svg.c_str());
    }
    std::printf("\n%.1f s\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    return claims.result();
} catch (const std::exception& e) {
    std::fprintf(stderr, "capacity: %s\n", e.what());
    return 2;
}
