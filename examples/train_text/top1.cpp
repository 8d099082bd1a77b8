#include "run_of.hpp"

namespace train_text {

using top1 =
    gf::decoder<decoder_with({.ffn = 2 * ffn, .experts = experts, .router = gf::routers::switch_transformer}), float>;

std::unique_ptr<run> make_top1(const plan& p, const corpus& text) { return std::make_unique<run_of<top1>>(p, text); }

}  // namespace train_text
