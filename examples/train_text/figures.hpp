// Everything that a run of train_text measures, as plain data: what the terminal, the report and the JSON file show.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace train_text {

struct held_out_point {
    int step;
    double loss;
};

/// How often each expert of each layer was chosen in the steps up to `step`: counts[layer · experts + expert].
struct load_point {
    int step;
    std::vector<std::int64_t> counts;
};

/// Measures of one layer's load over the held-out text.
struct layer_balance {
    double max_violation = 0, entropy = 0;
    int dead = 0, starved = 0;
};

struct run_figures {
    std::string name, role;  ///< role: mixture, dense, unbalanced, contrast_k2, contrast_k1
    std::uint64_t seed = 0;
    int steps = 0, done = 0;
    int layers = 0, experts = 1, top_k = 1, ffn = 0;
    double balance = 0;  ///< coefficient of the balancing loss
    std::int64_t parameters = 0, active = 0, flops = 0;

    std::vector<double> training_loss;  ///< of every step
    std::vector<held_out_point> held_out;
    std::vector<load_point> loads;

    double final_loss = 0;  ///< nats per byte over all held-out text
    double seconds = 0;
    double tokens_per_second = 0;
    std::vector<std::int64_t> load;       ///< over the held-out text, as load_point::counts
    std::vector<layer_balance> balances;  ///< of each layer, from `load`
    std::vector<std::int64_t> byte_load;  ///< [256, layers, experts] over the held-out text

    bool routed() const { return experts > 1; }
    double worst_violation() const {
        double worst = 0;
        for (const auto& b : balances) worst = b.max_violation > worst ? b.max_violation : worst;
        return worst;
    }
    int starved() const {
        int all = 0;
        for (const auto& b : balances) all += b.starved;
        return all;
    }
    /// More than three times the mean load on one expert, or an expert with less than a hundredth of it.
    bool collapsed() const { return worst_violation() > 2 || starved() > 0; }
};

struct figures {
    std::string text, tier;
    std::size_t training_bytes = 0, held_out_bytes = 0;
    std::uint64_t seed = 0;
    int context = 0, sequences = 0, hidden = 0, workers = 1;
    double seconds = 0;
    std::vector<run_figures> runs;
    std::string prompt, sample;

    const run_figures* find(const std::string& role) const {
        for (const auto& r : runs)
            if (r.role == role) return &r;
        return nullptr;
    }
};

}  // namespace train_text
