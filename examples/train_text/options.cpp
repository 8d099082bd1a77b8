#include "options.hpp"

#include <charconv>
#include <cstring>

namespace train_text {

const char* const help_text =
    R"(train_text: a byte-level language model with a mixture of experts, trained next to its dense twin

    train_text [OPTION]...

  --text FILE...    what to read (default: /usr/share/common-licenses, else gatefold's own headers)
  --steps N         optimiser steps of the two main runs (default 500)
  --seed N          seed of weights, batches and sample (default 1)
  --contrast N      seeds of the short runs without balancing; 0 leaves them out (default 3)
  --threads N       runs go on side by side, one thread each (default: what the machine has)
  --generate N      bytes of the sample at the end, 0 for none (default 400); with --load: write the sample and leave
  --prompt TEXT     how the sample begins (default "This License ")
  --save FILE       keep both models and their optimisers in FILE when done, or when Ctrl-C stops the run
  --load FILE       go on from such a file; the result has the bits of a run that was never stopped
  --report FILE     write the figures as one HTML page with plots
  --json FILE       write every figure shown as JSON
  --help            this text

Ctrl-C saves (to FILE of --save, else train_text.safetensors) and leaves.
)";

namespace {

template <class N>
N number(const char* option, const char* text, N least, N most) {
    N value{};
    const char* const end = text + std::strlen(text);
    const auto [stopped, error] = std::from_chars(text, end, value);
    if (error != std::errc{} || stopped != end || value < least || value > most)
        throw usage_error{std::string(option) + ": expected a whole number from " + std::to_string(least) + " to " +
                          std::to_string(most) + ", got \"" + text + "\""};
    return value;
}

}  // namespace

options parse(int count, char** arguments) {
    options o;
    bool generate_given = false;
    for (int i = 1; i < count; ++i) {
        const std::string option = arguments[i];
        const auto value = [&]() -> const char* {
            if (i + 1 >= count) throw usage_error{option + ": expected a value after it"};
            return arguments[++i];
        };
        const auto file = [&] {
            const std::string path = value();
            if (path.empty()) throw usage_error{option + ": expected the name of a file, got \"\""};
            return path;
        };
        if (option == "--help" || option == "-h") {
            o.help = true;
        } else if (option == "--seed") {
            o.seed = number<std::uint64_t>("--seed", value(), 0, ~std::uint64_t{0});
            o.seed_given = true;
        } else if (option == "--steps") {
            o.steps = number("--steps", value(), 1, 1000000);
            o.steps_given = true;
        } else if (option == "--contrast") {
            o.contrast = number("--contrast", value(), 0, 100);
        } else if (option == "--threads") {
            o.threads = number("--threads", value(), 1, 1024);
        } else if (option == "--generate") {
            o.generate = number("--generate", value(), 0, 1000000);
            generate_given = true;
        } else if (option == "--prompt") {
            o.prompt = value();
            if (o.prompt.empty()) throw usage_error{"--prompt: expected at least one character, got \"\""};
        } else if (option == "--save") {
            o.save = file();
        } else if (option == "--load") {
            o.load = file();
        } else if (option == "--report") {
            o.report = file();
        } else if (option == "--json") {
            o.json = file();
        } else if (option == "--text") {
            o.text.push_back(file());
            while (i + 1 < count && std::strncmp(arguments[i + 1], "--", 2) != 0) o.text.push_back(file());
        } else {
            throw usage_error{"unknown option \"" + option + "\"; --help lists them"};
        }
    }
    o.only_generate = generate_given && o.generate > 0 && !o.load.empty();
    return o;
}

}  // namespace train_text
