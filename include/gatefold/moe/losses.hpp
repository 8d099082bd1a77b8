// Losses that keep a router balanced: each returns its value and adds the gradient of the logits to the tape, between
// forward and backward.
//
//     forward(ctx, w, in, y, tape) ──> add_loss(ctx, losses::switch_balance{}, tape, in) ──> backward(ctx, w, in, tape,
//     ...)
//
// p is what a loss sees of a token: the softmax of its logits, or for other scores the score divided by the sum. The
// fraction f of tokens that chose an expert has no gradient. Tokens that the mask calls padding count nowhere. Sums
// over tokens go upwards in double precision, so values and gradients are the same for any number of threads.
#pragma once

#include <type_traits>

#include <gatefold/moe/check.hpp>
#include <gatefold/moe/seam.hpp>
#include <gatefold/moe/tape.hpp>

namespace gatefold::inline v0::losses {

/// Which choices of a token count for the fraction f: its best p, every slot, the k best p (whatever was chosen).
enum class counted { best, slots, unbiased };

/// coefficient · E · Σ f P with f of the best expert: Switch Transformer, eq. 4-6. At perfect balance: coefficient.
struct switch_balance {
    double coefficient = 0.01;
    static constexpr counted counts = counted::best;
    static constexpr bool by_sequence = false;
    constexpr double factor(double experts, double) const { return coefficient * experts; }
};

/// coefficient · E · Σ over slots of f P, as transformers computes it; over several layers their tokens are one batch.
/// At perfect balance: coefficient · k.
struct hugging_face {
    double coefficient = 0.001;
    static constexpr counted counts = counted::slots;
    static constexpr bool by_sequence = false;
    constexpr double factor(double experts, double) const { return coefficient * experts; }
};

/// coefficient · E / k · Σ f P: Megatron, and DeepSeekMoE's expert-level loss. At perfect balance: coefficient.
struct megatron {
    double coefficient = 0.01;
    static constexpr counted counts = counted::slots;
    static constexpr bool by_sequence = false;
    constexpr double factor(double experts, double top_k) const { return coefficient * experts / top_k; }
};
using expert_level = megatron;

/// The mean over sequences of coefficient · E / k · Σ f P with f of the k best p, whatever the correction bias made of
/// the choice: DeepSeek-V3, eq. 17-20. Needs batch.sequence_starts; without it all tokens are one sequence.
struct sequence_wise {
    double coefficient = 1e-4;
    static constexpr counted counts = counted::unbiased;
    static constexpr bool by_sequence = true;
    constexpr double factor(double experts, double top_k) const { return coefficient * experts / top_k; }
};

/// coefficient · mean of the squared log of the sum of exponentials of the logits: ST-MoE, §3. Keeps logits small.
struct z_loss {
    double coefficient = 1e-3;
};

}  // namespace gatefold::inline v0::losses

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// The value of `loss` over the tokens on the tapes, together one batch; adds its gradient to each logit_gradients().
///
/// `in` brings mask and sequence starts; with several tapes it describes the tokens of each.
/// Throws:  argument_error for mask or starts that do not fit, tapes of different length; std::bad_alloc.
template <class Loss, layer_type L, backend B, std::size_t N>
double add_loss(context<B>& ctx, const Loss& loss, tape<L, B>* const (&tapes)[N],
                const std::type_identity_t<batch<L, B>>& in = {}) {
    const index_t tokens = tapes[0]->tokens();
    for (const auto* t : tapes)
        require(t->tokens() == tokens, "add_loss", "tapes", "tapes of the same number of tokens", t->tokens());
    if (in.mask.data()) detail::check_view("add_loss", "mask", in.mask, tokens);
    if (in.sequence_starts.data()) detail::check_starts("add_loss", in.sequence_starts, tokens);
    return detail::impl<B>::add_loss(ctx, loss, tapes, static_cast<int>(N), in);
}
template <class Loss, layer_type L, backend B>
double add_loss(context<B>& ctx, const Loss& loss, tape<L, B>& saved,
                const std::type_identity_t<batch<L, B>>& in = {}) {
    tape<L, B>* const one[1] = {&saved};
    return add_loss(ctx, loss, one, in);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
