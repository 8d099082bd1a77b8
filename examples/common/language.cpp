#include "language.hpp"

#include <algorithm>

#include <gatefold/core/random.hpp>

namespace language {
namespace {

namespace gf = gatefold;

double uniform(const gf::counter_rng& random, int i, int j) {
    return random.uniform_from_zero<double>(gf::purpose::sampling, i, j);
}

struct lexicon {
    std::vector<std::vector<std::int32_t>> words;
    std::vector<double> up_to;  ///< probability of this word or one before it
};

/// 200 words of two to seven letters; the r-th has a probability proportional to 1 / (r + 2).
lexicon make_lexicon() {
    lexicon all;
    const gf::counter_rng random{7};
    double total = 0;
    for (int w = 0; w < 200; ++w) {
        std::vector<std::int32_t> word;
        const int length = 2 + static_cast<int>(uniform(random, w, 0) * 6);
        for (int i = 0; i < length; ++i) word.push_back(1 + static_cast<std::int32_t>(uniform(random, w, i + 2) * 26));
        all.words.push_back(std::move(word));
        all.up_to.push_back(total += 1.0 / (w + 2));
    }
    for (double& p : all.up_to) p /= total;
    return all;
}

void add_window(rows& to, const std::vector<std::int32_t>& text, int at, int length) {
    const auto first = text.begin() + at;
    to.ids.insert(to.ids.end(), first, first + length);
    to.targets.insert(to.targets.end(), first + 1, first + length + 1);
}

}  // namespace

std::vector<std::int32_t> text(std::uint64_t seed, int count) {
    static const lexicon all = make_lexicon();
    const gf::counter_rng random{seed, 99};
    std::vector<std::int32_t> made;
    for (int w = 0; static_cast<int>(made.size()) < count; ++w) {
        const auto found = std::upper_bound(all.up_to.begin(), all.up_to.end(), uniform(random, w, 0));
        const auto& word = all.words[static_cast<std::size_t>(
            (std::min)(found - all.up_to.begin(), static_cast<std::ptrdiff_t>(all.words.size()) - 1))];
        made.insert(made.end(), word.begin(), word.end());
        made.push_back(0);
    }
    made.resize(static_cast<std::size_t>(count));
    return made;
}

rows draw(const std::vector<std::int32_t>& text, std::uint64_t seed, int step, int count, int length) {
    const gf::counter_rng random{seed, static_cast<std::uint64_t>(step)};
    const int places = static_cast<int>(text.size()) - length;
    rows all;
    for (int r = 0; r < count; ++r) add_window(all, text, static_cast<int>(uniform(random, r, 0) * places), length);
    return all;
}

rows in_order(const std::vector<std::int32_t>& text, int first, int count, int length) {
    rows all;
    for (int r = first; r < first + count; ++r) add_window(all, text, r * length, length);
    return all;
}

}  // namespace language
