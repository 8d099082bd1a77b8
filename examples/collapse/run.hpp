// One training run of the example: what is asked of it and what it measures.
#pragma once

#include <cstdint>
#include <vector>

namespace collapse {

inline constexpr int experts = 8;

struct plan {
    const char* name;
    double coefficient = 0;  ///< of the load-balancing loss
    double rate = 0;         ///< of the loss-free bias
    bool noise = false;      ///< noisy top-k only
};

struct figures {
    double loss = 0;             ///< held out, nats per symbol
    double violation = 0;        ///< MaxVio of the load over the last fifth of the steps
    double step_violation = 0;   ///< mean over these steps of each step's own MaxVio
    double entropy = 0;          ///< of the load over them; 1 is even
    double early_entropy = 0;    ///< of the load over the first twentieth of the steps
    int dead = 0, starved = 0;   ///< experts never chosen in the last fifth; with less than a hundredth of the mean
    std::vector<double> course;  ///< MaxVio of single steps, averaged over twentieths of the run

    bool collapsed() const { return violation > 2 || starved > 0; }
};

/// One expert per token, weighted by its probability: switch routing with a bias that a controller may move.
figures train_top1(const plan& p, std::uint64_t seed, int steps);
/// Two experts per token by noisy top-k, from gates of zero.
figures train_noisy(const plan& p, std::uint64_t seed, int steps);

}  // namespace collapse
