// What the example measures: training runs under a capacity, priorities on one trained model, expert choice.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace capacity {

inline constexpr int experts = 8, top_k = 2;

struct training_figures {
    double loss = 0;             ///< held out, without any capacity, nats per symbol
    double capped_loss = 0;      ///< held out, with the capacity of training
    double first_dropped = 0;    ///< share of the pairs that were dropped in the first tenth of the steps
    double dropped = 0;          ///< the same in the last tenth
    std::int64_t capacity = 0;   ///< C of a step's tokens; 0 without one
    std::int64_t most_rows = 0;  ///< of any expert in any step
    std::vector<float> weights;  ///< every trained parameter, for comparing to the bit
};

/// Trains with megatron's rule, C = ceil(T k / E · factor), and arrival; factor 0: a layer without a capacity.
training_figures train(double factor, std::uint64_t seed, int steps);

/// What one priority keeps of the same routing at C = ceil(T k / E · 0.5).
struct priority_figures {
    const char* name;
    double kept_weight = 0;  ///< sum of kept weights over the sum of all
    double kept_pairs = 0;   ///< share
    double loss = 0;         ///< held out
    double untouched = 0;    ///< share of the tokens that lose every expert
};
std::array<priority_figures, 4> compare_priorities(std::uint64_t seed, int steps);

/// Each expert takes its best tokens: how many experts tokens get, and what a later token changes for earlier ones.
struct choice_figures {
    double violation = 0;                 ///< MaxVio
    std::vector<std::int64_t> per_token;  ///< [j]: tokens with j experts
    std::int64_t earlier = 0;             ///< tokens before those that were replaced
    std::int64_t changed_by_choice = 0;   ///< of them, those whose output changed
    std::int64_t changed_by_top_k = 0;    ///< the same for a router that looks at one token at a time
};
choice_figures expert_choice(std::uint64_t seed);

}  // namespace capacity
