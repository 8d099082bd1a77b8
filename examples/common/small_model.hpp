// A decoder small enough to be trained dozens of times in a minute: one block of width 32 over the made-up language.
//
//     model<D> m(seed);   m.train(batch, rate, options, [&](auto& routing) { … });   m.held_out(text, options, …)
#pragma once

#include <gatefold/nn.hpp>
#include <gatefold/train.hpp>

#include "language.hpp"

namespace small_model {

namespace gf = gatefold;

inline constexpr int context = 16, sequences = 32, hidden = 32;
inline constexpr gf::index_t tokens = gf::index_t{context} * sequences;

constexpr gf::decoder_config decoder_with(const gf::config& layer) {
    return {
        .vocabulary = language::symbols, .hidden = hidden, .layers = 1, .heads = 2, .context = context, .layer = layer};
}

template <gf::decoder_type D>
struct model {
    using L = typename D::layer_type;

    gf::context<gf::cpu> ctx{1};  // models are trained side by side, one thread each
    gf::decoder_weights<D> weights;
    gf::decoder_gradients<D> gradients = gf::make_decoder_gradients<D>(ctx);
    gf::adamw_state<gf::decoder_weights<D>> state;
    gf::decoder_tape<D> tape{ctx, sequences, context};
    gf::tensor<float, gf::dyn, D::vocabulary> d_logits = gf::make_tensor<float, gf::dyn, D::vocabulary>(ctx, tokens);

    /// Routers start small, so that nothing but training decides between experts.
    explicit model(std::uint64_t seed, double router = 0.1)
        : weights(gf::random_decoder_weights<D>(ctx, gf::seed{seed}, {.router = router})),
          state(gf::make_adamw_state(ctx, weights)) {}

    static gf::view<const std::int32_t, gf::dyn> of(const std::vector<std::int32_t>& v) {
        return {v.data(), {static_cast<gf::index_t>(v.size())}};
    }
    gf::weights<L>& layer() { return weights.blocks[0].layer; }
    gf::tape<L>& routing() { return tape.block(0).layer; }

    /// One step of AdamW. `between` is called after the forward pass with the layer's tape: the place for losses and
    /// counts. Returns the mean loss of the batch in nats per symbol.
    template <class Between>
    double train(const language::rows& batch, double rate, const gf::options<L>& o, Between between) {
        gf::forward(ctx, weights, of(batch.ids), tape, {.layer = o});
        const double loss = gf::cross_entropy(ctx, tape.logits(), of(batch.targets), d_logits.view()).loss;
        between(routing());
        gf::backward(ctx, weights, tape, d_logits.view(), gradients, {.layer = o});
        gf::step(ctx, weights, gradients, state, rate,
                 {.gradient_factor = gf::clip_factor(gf::global_norm(ctx, gradients), 1)});
        return loss;
    }

    /// Mean loss over a text; `seen` is called with the layer's tape after every batch.
    template <class Seen>
    double held_out(const std::vector<std::int32_t>& text, const gf::options<L>& o, Seen seen) {
        const int batches = (static_cast<int>(text.size()) - 1) / static_cast<int>(tokens);
        double sum = 0;
        for (int b = 0; b < batches; ++b) {
            const language::rows batch = language::in_order(text, b * sequences, sequences, context);
            gf::forward(ctx, weights, of(batch.ids), tape, {.layer = o});
            sum += gf::cross_entropy(ctx, tape.logits(), of(batch.targets)).loss;
            seen(routing());
        }
        return sum / batches;
    }
};

}  // namespace small_model
