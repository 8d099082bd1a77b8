// Losses of a router that are not sums of f P: on logits, on the spread of importance and load, on the router's
// weights.
//
//     add_loss(ctx, losses::z_loss{}, tape, in)                          as in losses.hpp
//     add_loss(ctx, losses::load{}, tape, in, options)                   draws the noise of the forward call again
//     add_loss(ctx, losses::orthogonality{}, w, gradients)               needs no tokens; adds to the gradients
#pragma once

#include <type_traits>

#include <gatefold/moe/check.hpp>
#include <gatefold/moe/seam.hpp>
#include <gatefold/moe/tape.hpp>

namespace gatefold::inline v0::losses {

/// coefficient · mean of the squared log of the sum of exponentials of the logits: ST-MoE, §3. Keeps logits small.
struct z_loss {
    double coefficient = 1e-3;
};

/// What Mesh TensorFlow adds to gshard for second experts: coefficient · 0.5 · E · Σ f P with f of the second slot and
/// P of p without its best, divided by the rest + 1e-9. At perfect balance: coefficient / 2.
struct second_place {
    double coefficient = 0.01;
    int group = 0;
};

/// Mesh TensorFlow's loss for experts that choose tokens: coefficient · T · Σ over tokens of (mean over experts of p)²,
/// p the softmax over the tokens of each expert. At perfect balance: coefficient.
struct expert_selection {
    double coefficient = 0.01;
};

/// coefficient · mean over tokens of -Σ p log p (arXiv 2403.07652): keeps a top-p router from choosing everything.
struct entropy {
    double coefficient = 1e-4;
};

/// -coefficient · mean over tokens and experts of (p - mean over tokens of the expert's p)²: rewards routers that tell
/// tokens apart, after the variance loss of arXiv 2505.22323. That paper's other loss, orthogonal outputs of the
/// experts of a token, is not there: it is a gradient of each expert's output by itself, and backward takes one
/// gradient per token. `experts` returns the outputs for watching their overlap.
struct score_variance {
    double coefficient = 1e-3;
};

/// coefficient · Σ over experts of the mean of max(logit, 0): ReMoE. Its coefficient is steered by relu_coefficient.
struct relu_sparsity {
    double coefficient = 1e-8;
};

/// The variance in a squared coefficient of variation, variance / (mean² + 1e-10).
enum class variance { population, sample };

/// coefficient · CV²(Σ over tokens of p): V-MoE.
struct importance {
    double coefficient = 0.01;
    variance kind = variance::population;
};

/// coefficient · CV²(Σ over tokens of the weights of the chosen): Shazeer et al. 2017, eq. 6-7. Dropped pairs count
/// with the weight they would have had.
struct gate_importance {
    double coefficient = 0.1;
    variance kind = variance::population;
};

/// coefficient · CV² of how likely each expert is to be among the best under another draw of its noise: V-MoE
/// (logit_transform::gaussian, means over tokens) and Shazeer et al. 2017, appendix A (noisy_top_k, sums over tokens;
/// the deviations learn too). Without noise, or where every expert is chosen, it is the CV² of how often experts were
/// chosen, which has no gradient.
struct load {
    double coefficient = 0.01;
    variance kind = variance::population;
};

/// coefficient · Σ over pairs of rows of the router of the squared cosine between them, each pair twice: ERNIE-4.5.
struct orthogonality {
    double coefficient = 1e-3;
};

}  // namespace gatefold::inline v0::losses

namespace gatefold::inline v0::detail {

/// The orthogonality loss with the parameter that it is about.
template <class Weights, class Gradients>
struct orthogonality_of_router {
    losses::orthogonality loss;
    Weights router;
    Gradients router_gradient;
};

/// A load loss with what it needs to draw noise again.
template <layer_type L>
struct load_of_call {
    losses::load loss;
    const options<L>& call;
};

}  // namespace gatefold::inline v0::detail

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// losses::load over the tokens of one forward call made with the options `o`; `in` brings mask and first token.
///
/// Throws:  argument_error for a mask that does not fit, std::bad_alloc; nothing is written then.
template <layer_type L, backend B>
double add_loss(context<B>& ctx, const losses::load& loss, tape<L, B>& saved,
                const std::type_identity_t<batch<L, B>>& in, const std::type_identity_t<options<L>>& o) {
    static_assert(
        L::c.router.transform == logit_transform::gaussian || L::c.router.transform == logit_transform::noisy_top_k,
        "gatefold::add_loss: the load loss asks how likely a choice is under normal noise; set .router.transform to "
        "logit_transform::gaussian or noisy_top_k");
    if (in.mask.data()) detail::check_view("add_loss", "mask", in.mask, saved.tokens());
    tape<L, B>* const one[1] = {&saved};
    return detail::impl<B>::add_loss(ctx, detail::load_of_call<L>{loss, o}, one, 1, in);
}

/// losses::orthogonality: adds to the gradient of the router's weights; call it after backward.
///
/// Throws:  std::bad_alloc; nothing is written then.
template <layer_type L, backend B>
double add_loss(context<B>& ctx, const losses::orthogonality& loss, const weights<L, B>& w, gradients<L, B>& g) {
    static_assert(L::c.router.logits == projection::linear,
                  "gatefold::add_loss: orthogonality is about the rows of a linear router; set .router.logits to "
                  "projection::linear");
    using router_type = detail::orthogonality_of_router<decltype(w.router.view()), decltype(g.router.view())>;
    const router_type router{loss, w.router.view(), g.router.view()};
    return detail::impl<B>::add_loss(ctx, router, static_cast<tape<L, B>* const*>(nullptr), 0, batch<L, B>{});
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
