// A made-up language: words of random letters, a few of them frequent, most of them rare, as in any text. The same for
// everybody who runs an example, so that figures can be compared.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace language {

/// Symbols: 0 is the space, 1 to 26 are letters.
inline constexpr int symbols = 32;

/// `count` symbols of text; `seed` says which text, never which language.
std::vector<std::int32_t> text(std::uint64_t seed, int count);

/// Rows of symbols and of what follows each of them.
struct rows {
    std::vector<std::int32_t> ids, targets;
};

/// `count` windows of `length` symbols from anywhere in the text: the batch of one training step.
rows draw(const std::vector<std::int32_t>& text, std::uint64_t seed, int step, int count, int length);

/// `count` windows without overlap from window `first` on.
rows in_order(const std::vector<std::int32_t>& text, int first, int count, int length);

}  // namespace language
