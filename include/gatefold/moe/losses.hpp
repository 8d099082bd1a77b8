// Losses that keep a router balanced: each returns its value and adds the gradient of the logits to the tape, between
// forward and backward.
//
//     forward(ctx, w, in, y, tape) ──> add_loss(ctx, losses::switch_balance{}, tape, in) ──> backward(ctx, w, in, tape,
//     ...)
//
// p is what a loss sees of a token: the softmax of its logits, or for other scores the score divided by the sum. P is
// the mean of p over the tokens; the fraction f of them that chose an expert has no gradient. Tokens that the mask
// calls padding count nowhere. Sums over tokens go upwards in double precision, so values and gradients are the same
// for any number of threads. Losses of other forms are in cpu/losses/regularisers.hpp.
#pragma once

#include <cstdint>
#include <type_traits>

#include <gatefold/moe/check.hpp>
#include <gatefold/moe/losses_regularisers.hpp>
#include <gatefold/moe/seam.hpp>
#include <gatefold/moe/tape.hpp>

namespace gatefold::inline v0::losses {

/// Which choices of a token count for the fraction f.
enum class counted {
    best,      ///< its best p
    slots,     ///< every slot
    members,   ///< every expert among its slots, once
    unbiased,  ///< the k best p, whatever a correction bias made of the choice
    devices,   ///< every expert on a device that the token is sent to
    given,     ///< nothing of the token: counts come from outside
};

// by_group: the value is averaged over groups. A group is `group` tokens, and where that is 0 or not there a sequence
// of the batch (all tokens if it names no sequences).

/// coefficient · E · Σ f P with f of the best expert: Switch Transformer, eq. 4-6. At perfect balance: coefficient.
struct switch_balance {
    double coefficient = 0.01;
    static constexpr counted counts = counted::best;
    static constexpr bool by_group = false;
    constexpr double factor(double experts, double) const { return coefficient * experts; }
};

/// The same in groups: coefficient · E² · mean over experts of f P, averaged over groups. GShard, Mesh TensorFlow,
/// Tutel. At perfect balance: coefficient.
struct gshard {
    double coefficient = 0.01;
    int group = 0;
    static constexpr counted counts = counted::best;
    static constexpr bool by_group = true;
    constexpr double factor(double experts, double) const { return coefficient * experts; }
};

/// As gshard with f of all chosen experts, a token counting once per expert: flaxformer, T5X, and transformers for
/// Switch and NLLB. At perfect balance: coefficient · k.
struct flaxformer {
    double coefficient = 0.01;
    int group = 0;
    static constexpr counted counts = counted::members;
    static constexpr bool by_group = true;
    constexpr double factor(double experts, double) const { return coefficient * experts; }
};

/// coefficient · E · Σ over slots of f P, as transformers computes it; over several layers their tokens are one batch.
/// At perfect balance: coefficient · k.
struct hugging_face {
    double coefficient = 0.001;
    static constexpr counted counts = counted::slots;
    static constexpr bool by_group = false;
    constexpr double factor(double experts, double) const { return coefficient * experts; }
};

/// coefficient · E / k · Σ f P: Megatron, and DeepSeekMoE's expert-level loss. At perfect balance: coefficient.
struct megatron {
    double coefficient = 0.01;
    static constexpr counted counts = counted::slots;
    static constexpr bool by_group = false;
    constexpr double factor(double experts, double top_k) const { return coefficient * experts / top_k; }
};
using expert_level = megatron;

/// DeepSeekMoE's device-level loss: as expert_level with f averaged over the experts of a device, which are neighbours.
/// At perfect balance: coefficient.
struct device_level {
    double coefficient = 0.05;
    int devices = 1;
    static constexpr counted counts = counted::slots;
    static constexpr bool by_group = false;
    constexpr double factor(double experts, double top_k) const { return coefficient * experts / top_k; }
};

/// DeepSeek-V2's communication loss: coefficient · D / M · Σ over devices of f P, f the fraction of tokens sent to the
/// device, P the sum over its experts, M the number of devices that a token may reach. At perfect balance: coefficient.
struct communication {
    double coefficient = 0.02;
    int devices = 1;
    int most_devices = 1;
    static constexpr counted counts = counted::devices;
    static constexpr bool by_group = false;
    constexpr double factor(double, double) const { return coefficient * devices / most_devices; }
};

/// The mean over sequences of coefficient · E / k · Σ f P with f of the k best p, whatever the correction bias made of
/// the choice: DeepSeek-V3, eq. 17-20. Needs batch.sequence_starts; without it all tokens are one sequence.
struct sequence_wise {
    double coefficient = 1e-4;
    static constexpr counted counts = counted::unbiased;
    static constexpr bool by_group = true;
    constexpr double factor(double experts, double top_k) const { return coefficient * experts / top_k; }
};

/// coefficient · E · Σ f P with f of the whole batch of an optimiser step (arXiv 2501.11873): `chosen` holds how often
/// each expert was chosen in all micro-batches up to this one, on all processes (add_expert_counts). At perfect
/// balance: coefficient.
struct global_batch {
    double coefficient = 0.001;
    view<const index_t, dyn> chosen = {};
    static constexpr counted counts = counted::given;
    static constexpr bool by_group = false;
    constexpr double factor(double experts, double) const { return coefficient * experts; }
};

}  // namespace gatefold::inline v0::losses

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <class Loss>
concept has_devices = requires(Loss loss) {
    loss.devices;
};
template <class Loss>
concept has_group = requires(Loss loss) {
    loss.group;
};

template <layer_type L, class Loss>
void check_loss(const Loss& loss) {
    static_assert(!L::is_dense, "gatefold::add_loss: a dense layer has no router to balance; leave the loss out");
    static_assert(!__is_same(Loss, losses::load),
                  "gatefold::add_loss: the load loss draws the noise of the forward call again; pass the options of "
                  "that call last");
    if constexpr (has_devices<Loss>)
        if (!(loss.devices >= 1 && L::choices % loss.devices == 0)) [[unlikely]]
            detail::reject("add_loss", "devices", counted("a divisor of ", L::choices, " experts"), loss.devices);
    if constexpr (has_group<Loss>) require(loss.group >= 0, "add_loss", "group", "zero or more tokens", loss.group);
    if constexpr (requires { loss.most_devices; })
        if (!(loss.most_devices >= 1 && loss.most_devices <= loss.devices)) [[unlikely]]
            detail::reject("add_loss", "most_devices", counted("1 to ", loss.devices), loss.most_devices);
    if constexpr (requires { loss.chosen; }) {
        if (!(loss.chosen.data() && loss.chosen.extent(0) == L::choices)) [[unlikely]]
            detail::reject("add_loss", "chosen", counted("", L::choices, " counts"), loss.chosen.extent(0));
        for (const index_t count : loss.chosen)
            require(count >= 0, "add_loss", "chosen", "counts of zero or more", count);
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// The value of `loss` over the tokens on the tapes, together one batch; adds its gradient to each logit_gradients().
///
/// `in` brings mask and sequence starts; with several tapes it describes the tokens of each.
/// Throws:  argument_error for mask, starts or numbers of the loss that do not fit, tapes of different length;
///          std::bad_alloc. Nothing is written then.
template <class Loss, layer_type L, backend B, std::size_t N>
double add_loss(context<B>& ctx, const Loss& loss, tape<L, B>* const (&tapes)[N],
                const std::type_identity_t<batch<L, B>>& in = {}) {
    const index_t tokens = tapes[0]->tokens();
    for (const auto* t : tapes)
        require(t->tokens() == tokens, "add_loss", "tapes", "tapes of the same number of tokens", t->tokens());
    detail::check_loss<L>(loss);
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

/// Several losses at once: the sum of their values.
///
///     add_losses(ctx, tape, in, losses::sequence_wise{}, losses::z_loss{});
template <layer_type L, backend B, class... Losses>
double add_losses(context<B>& ctx, tape<L, B>& saved, const std::type_identity_t<batch<L, B>>& in,
                  const Losses&... each) {
    double sum = 0;
    ((sum += add_loss(ctx, each, saved, in)), ...);
    return sum;
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
