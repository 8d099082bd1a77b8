#include "run_of.hpp"

namespace train_text {

using dense = gf::decoder<decoder_with({.ffn = 2 * ffn}), float>;

std::unique_ptr<run> make_dense(const plan& p, const corpus& text) { return std::make_unique<run_of<dense>>(p, text); }

}  // namespace train_text
