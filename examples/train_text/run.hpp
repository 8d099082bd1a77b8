// One training run behind an interface without its types: every model is compiled in a file of its own.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include <gatefold/io/safetensors.hpp>
#include <gatefold/io/safetensors_writer.hpp>

#include "corpus.hpp"
#include "figures.hpp"

namespace train_text {

inline constexpr int context = 128, sequences = 16, hidden = 64, layers = 2, experts = 8, ffn = 128;

/// What a run is given.
struct plan {
    std::string name, role;
    std::uint64_t seed = 1;
    int steps = 0;
    double balance = 0;  ///< coefficient of the balancing loss
    int threads = 1;
};

class run {
public:
    virtual ~run() = default;

    /// Trains until all steps are done or `stop` is set, then measures on the held-out text if done.
    virtual void train(const std::atomic<bool>& stop) = 0;
    /// Adds weights, optimiser and curves to a file, everything under PREFIX.
    virtual void add_to(gatefold::safetensors_writer& file, const std::string& prefix) = 0;
    /// Takes them back.
    virtual void take_from(const gatefold::safetensors_file& file, const std::string& prefix) = 0;
    /// `count` bytes that follow the prompt.
    virtual std::string generate(const std::string& prompt, int count, std::uint64_t seed) = 0;

    run_figures figures;
    std::atomic<int> step{0};       ///< steps done, for the display
    std::atomic<double> recent{0};  ///< mean loss of the last steps
    std::atomic<bool> finished{false};
};

/// The mixture of experts, two of eight.
std::unique_ptr<run> make_mixture(const plan& p, const corpus& text);
/// Its dense twin: one FFN as wide as the two experts of a token.
std::unique_ptr<run> make_dense(const plan& p, const corpus& text);
/// One of eight experts, each as wide as the twin's FFN.
std::unique_ptr<run> make_top1(const plan& p, const corpus& text);

}  // namespace train_text
