// Every named router on the same 512 tokens and 16 experts: what it chooses, how it weighs, how even the load is, what
// it costs. Routers with a matrix of the same shape have the same matrix, so they see the same logits.
// ctest: --svg routers.svg
#include <cmath>
#include <cstdio>
#include <exception>
#include <string>

#include "../common/plot.hpp"
#include "../common/program.hpp"
#include "measure.hpp"

namespace {

using namespace routers_example;

/// The first four of a list.
template <class V>
std::string first_of(const V& values, const char* pattern) {
    std::string text;
    for (std::size_t i = 0; i < values.size() && i < 4; ++i) {
        char cell[32];
        std::snprintf(cell, sizeof cell, pattern, values[i]);
        text += cell;
    }
    return text + (values.size() > 4 ? " .." : "");
}

}  // namespace

int main(int count, char** values) try {
    program::arguments given(count, values, "[--svg FILE]");
    const std::string svg = given.text("--svg");
    given.done();

    table t;
    softmax_over_all(t);
    softmax_over_chosen_and_sigmoid(t);
    first_routers(t);
    routers_of_papers(t);

    std::printf(
        "%zu named routers on %lld tokens of width %d (seed 12), %d experts (matrix of seed 11), float, one thread\n\n",
        t.rows.size(), static_cast<long long>(tokens), hidden, choices);
    std::printf("%-18s %2s  %2s  %6s  %-18s  %-22s  %5s  %7s  %7s  %11s  %8s\n", "router", "k", "S", "chosen",
                "experts of token 0", "their weights", "sum", "MaxVio", "entropy", "in training", "ns/token");
    for (const row& r : t.rows) {
        double sum = 0;
        for (const double w : r.weights) sum += w;
        std::printf("%-18s %2d  %2d  %6.2f  %-18s  %-22s  %5.2f  %7.2f  %7.3f  %11.2f  %8.0f\n", r.name.c_str(),
                    r.top_k, r.slots, r.per_token, first_of(r.ids, "%3d").c_str(), first_of(r.weights, "%5.2f").c_str(),
                    sum, r.violation, r.entropy, r.training_violation, r.nanoseconds);
    }
    std::printf(
        "\nS: slots of a token; chosen: how many of them are filled on average. MaxVio: largest load over the mean,\n"
        "less 1. In training noise, sampling and assignments over the batch are on; the other figures are of\n"
        "inference, where base and sinkhorn choose by the logits. Selection biases prefer even experts by 0.04.\n"
        "Time: median of 11 calls of route after two; %d FLOP of it are the product with the matrix (%d KiB).\n\n"
        "What must hold\n",
        2 * hidden * choices, hidden * choices * 4 / 1024);

    const auto find = [&](const char* name) -> const row& {
        for (const row& r : t.rows)
            if (r.name == name) return r;
        return t.rows[0];
    };
    const row& mixtral = find("mixtral");
    bool valid = true, agree = true;
    for (const row& r : t.rows) {
        valid = valid && r.is_valid;
        if (r.by_logit) agree = agree && !r.ids.empty() && r.ids[0] == mixtral.ids[0];
    }
    double mixtral_sum = 0;
    for (const double w : mixtral.weights) mixtral_sum += w;
    program::claims claims;
    claims.expect(valid, "ids are experts and differ within a token, weights are finite: for every router and token");
    claims.expect(agree, "whoever chooses by logits alone has the same first expert");
    claims.expect(std::fabs(mixtral_sum - 1) < 1e-6, "renormalised weights add up to 1");
    claims.expect(find("expert_choice").violation == 0 && find("mesh_expert_choice").violation == 0 &&
                      find("base").training_violation == 0,
                  "expert choice and base in training are even to the token");
    claims.expect(find("sinkhorn").training_violation < find("sinkhorn").violation,
                  "sinkhorn evens the load in training");
    claims.expect(find("top_p").per_token < find("every").per_token && find("every").per_token == choices,
                  "numbers of experts vary with the token where they should");
    if (!svg.empty()) {
        std::vector<std::string> names;
        std::vector<std::vector<double>> cells;
        for (const row& r : t.rows) {
            names.push_back(r.name);
            cells.push_back({r.violation, r.training_violation});
        }
        plot::write_svg(svg, {plot::heat_map(names, {"inference", "training"}, cells, 1, "MaxVio; full colour: 1")});
        std::printf("\nwrote %s\n", svg.c_str());
    }
    return claims.result();
} catch (const std::exception& e) {
    std::fprintf(stderr, "routers: %s\n", e.what());
    return 2;
}
