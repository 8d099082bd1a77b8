// The tape: what forward keeps for backward, and where losses leave their gradients.
//
//     forward(ctx, w, in, y, tape) ──> logits, ids, weights, plan, pre-activations ──> loss adds to logit_gradients
//                                                                             └──────> backward(ctx, w, in, tape, dy,
//                                                                             ...)
// The memory-saving form: expert outputs and activations are not kept; backward forms what it needs of them again.
#pragma once

#include <gatefold/moe/call.hpp>
#include <gatefold/moe/plan.hpp>

namespace gatefold::inline v0 {

/// Owned memory for at most `most_tokens()` tokens of one layer; of fixed size, filled anew by every forward call.
template <layer_type L, backend B = cpu>
class tape {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;

public:
    using layer_type = L;
    using backend_type = B;

    tape() = default;
    /// Throws: argument_error for a negative number or one whose pairs an int32 cannot number, std::bad_alloc.
    GATEFOLD_INLINE tape(context<B>& ctx, index_t most_tokens)
        : plan_(ctx, checked(most_tokens)),
          ids_(make_tensor<std::int32_t, dyn, L::slots>(ctx, routed(most_tokens))),
          weights_(make_tensor<A, dyn, L::slots>(ctx, routed(most_tokens))),
          logits_(make_tensor<A, dyn, L::choices>(ctx, routed(most_tokens))),
          logit_gradients_(make_tensor<A, dyn, L::choices>(ctx, routed(most_tokens))),
          deviations_(make_tensor<A, dyn, L::choices>(ctx, learns_noise ? routed(most_tokens) : 0)),
          deviation_gradients_(make_tensor<A, dyn, L::choices>(ctx, learns_noise ? routed(most_tokens) : 0)),
          gate_up_(make_tensor<T, dyn, L::gate_up_rows>(ctx, max_rows(L::c, most_tokens))),
          shared_gate_up_(make_tensor<T, dyn, L::shared_gate_up_rows>(ctx, L::shared_ffn > 0 ? most_tokens : 0)),
          latent_sums_(make_tensor<A, dyn, L::c.latent>(ctx, L::c.latent > 0 ? most_tokens : 0)),
          most_tokens_(most_tokens) {}

    GATEFOLD_INLINE index_t most_tokens() const { return most_tokens_; }
    /// Tokens of the forward call that filled the tape; 0 before the first.
    GATEFOLD_INLINE index_t tokens() const { return tokens_; }

    /// Routing of the last forward call.
    GATEFOLD_INLINE routing_view<L, B> routing() {
        return {ids_.view().slice(0, routed(tokens_)), weights_.view().slice(0, routed(tokens_)),
                logits_.view().slice(0, routed(tokens_))};
    }
    /// The plan of the last forward call.
    GATEFOLD_INLINE plan_view<B> plan() { return plan_.view(routed(tokens_)); }
    /// [T, N] Losses add the gradients of their value with respect to the logits here, between forward and backward.
    GATEFOLD_INLINE basic_view<B, A, dyn, L::choices> logit_gradients() {
        return logit_gradients_.view().slice(0, routed(tokens_));
    }
    /// [T, N] the deviations of learned noise in training (noisy_top_k; no rows for other routers), and where losses
    /// add their gradients.
    GATEFOLD_INLINE basic_view<B, A, dyn, L::choices> deviations() {
        return deviations_.view().slice(0, learns_noise ? routed(tokens_) : 0);
    }
    GATEFOLD_INLINE basic_view<B, A, dyn, L::choices> deviation_gradients() {
        return deviation_gradients_.view().slice(0, learns_noise ? routed(tokens_) : 0);
    }
    /// [rows, 2F or F] what the activation was given, in plan order.
    GATEFOLD_INLINE basic_view<B, T, dyn, L::gate_up_rows> gate_up() { return gate_up_.view(); }
    /// [T, 2Fs or Fs] the same of the shared expert.
    GATEFOLD_INLINE basic_view<B, T, dyn, L::shared_gate_up_rows> shared_gate_up() { return shared_gate_up_.view(); }

    /// [T, D] the routed sums of experts on a projection of the tokens.
    GATEFOLD_INLINE basic_view<B, A, dyn, L::c.latent> latent_sums() { return latent_sums_.view(); }

    /// Throws argument_error unless the tape has room for `tokens` tokens.
    GATEFOLD_INLINE void require_room(index_t tokens) const {
        if (!(tokens <= most_tokens_)) [[unlikely]]
            detail::reject("forward", "tape", detail::counted("room for ", tokens, " tokens"), most_tokens_);
    }
    /// Called by forward: the number of tokens that the tape is about to hold.
    GATEFOLD_INLINE void set_tokens(index_t tokens) { tokens_ = tokens; }

private:
    GATEFOLD_INLINE static index_t checked(index_t most_tokens) {
        require(most_tokens >= 0 && most_tokens <= gatefold::most_tokens(L::c), "tape", "most_tokens",
                gatefold::most_tokens(L::c), most_tokens);
        return L::is_dense ? 0 : most_tokens;
    }
    // A dense layer routes nothing, so its tape holds pre-activations only.
    static constexpr index_t routed(index_t tokens) { return L::is_dense ? 0 : tokens; }
    static constexpr bool learns_noise = L::c.router.transform == logit_transform::noisy_top_k;

    gatefold::plan<L, B> plan_;
    basic_tensor<B, std::int32_t, dyn, L::slots> ids_;
    basic_tensor<B, A, dyn, L::slots> weights_;
    basic_tensor<B, A, dyn, L::choices> logits_, logit_gradients_, deviations_, deviation_gradients_;
    basic_tensor<B, T, dyn, L::gate_up_rows> gate_up_;
    basic_tensor<B, T, dyn, L::shared_gate_up_rows> shared_gate_up_;
    basic_tensor<B, A, dyn, L::c.latent> latent_sums_;
    index_t most_tokens_ = 0, tokens_ = 0;
};

}  // namespace gatefold::inline v0
