// The tokens on a stack of tapes as losses see them: which count, their probabilities, groups of them.
#pragma once

#include <cstdint>

#include <gatefold/core/workspace.hpp>
#include <gatefold/cpu/rows.hpp>
#include <gatefold/moe/losses.hpp>
#include <gatefold/moe/losses_probabilities.hpp>
#include <gatefold/moe/router_token.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// The tokens of several tapes of equal length, one after another.
template <layer_type L>
struct stacked_tokens {
    tape<L>* const* tapes;
    index_t each, all;
    const batch<L>& in;
    index_t first;  ///< number of the first token, for noise

    bool counts(index_t t) const { return !in.mask.data() || in.mask[t % each] != 0; }
    double valid(index_t begin, index_t end) const {
        double n = 0;
        for (index_t t = begin; t < end; ++t) n += counts(t) ? 1 : 0;
        return n;
    }
    const typename L::accumulate_type* logits(index_t t) const {
        return tapes[t / each]->routing().logits.data() + t % each * L::choices;
    }
    const std::int32_t* ids(index_t t) const { return tapes[t / each]->routing().ids.data() + t % each * L::slots; }
    typename L::accumulate_type* gradient(index_t t) const {
        return tapes[t / each]->logit_gradients().data() + t % each * L::choices;
    }
};

/// p of all tokens, in the workspace of the context.
template <layer_type L>
struct token_probabilities {
    double *p, *sums;

    token_probabilities(context<cpu>& ctx, const stacked_tokens<L>& tokens) {
        carver counting(nullptr);
        carve(counting, tokens.all);
        carver memory(ctx.workspace(counting.used()));
        carve(memory, tokens.all);
        const int parts = static_cast<int>(tokens.all < ctx.threads() ? tokens.all : ctx.threads());
        ctx.parallel(parts, [&](int part) {
            const range mine = part_of(tokens.all, part, parts);
            for (index_t t = mine.begin; t < mine.end; ++t)
                sums[t] = probabilities<L>(tokens.logits(t), p + t * L::choices);
        });
    }

private:
    void carve(carver& memory, index_t all) {
        p = memory.take<double>(all * L::choices);
        sums = memory.take<double>(all);
    }
};

/// Σ f(first, last, share) over groups of `size` tokens or, where that is 0, over sequences; no group spans two tapes.
template <layer_type L, class F>
double mean_over_groups(const stacked_tokens<L>& tokens, index_t size, F&& f) {
    const auto& starts = tokens.in.sequence_starts;
    const index_t each = tokens.each, stacks = tokens.all / each;
    if (size == 0 && !starts.data()) return f(index_t{0}, tokens.all, 1.0);
    const index_t groups = size > 0 ? ceil_div(each, size) : starts.extent(0);
    const auto start_of = [&](index_t g) {
        if (g == groups) return each;
        return size > 0 ? g * size : static_cast<index_t>(starts[g]);
    };
    double value = 0;
    for (index_t stack = 0; stack < stacks; ++stack)
        for (index_t g = 0; g < groups; ++g)
            value += f(stack * each + start_of(g), stack * each + start_of(g + 1),
                       1.0 / static_cast<double>(groups * stacks));
    return value;
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
