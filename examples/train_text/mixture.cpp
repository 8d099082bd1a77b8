#include "run_of.hpp"

namespace train_text {

using mixture =
    gf::decoder<decoder_with({.ffn = ffn, .experts = experts, .top_k = 2, .router = gf::routers::mixtral}), float>;

std::unique_ptr<run> make_mixture(const plan& p, const corpus& text) {
    return std::make_unique<run_of<mixture>>(p, text);
}

}  // namespace train_text
