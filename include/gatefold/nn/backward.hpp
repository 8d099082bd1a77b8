// A decoder's backward pass: the forward pass in reverse, over the activations on the tape.
#pragma once

#include <gatefold/moe/backward.hpp>
#include <gatefold/nn/forward.hpp>

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Gradients of all parameters from the gradient of the logits and the tape of the forward call with the same weights.
///
/// Losses of the layers add to saved.block(i).layer.logit_gradients() between the two calls.
/// Shapes:  d_logits [sequences · length, vocabulary].
/// Throws:  argument_error for another number of rows; g is untouched then.
/// Bits:    the same for any number of threads.
template <decoder_type D>
void backward(context<cpu>& ctx, const decoder_weights<D>& w, decoder_tape<D>& saved,
              std::type_identity_t<view<const typename D::accumulate_type, dyn, D::vocabulary>> d_logits,
              decoder_gradients<D>& g, const decoder_options<D>& o = {}) {
    using L = typename D::layer_type;
    using T = typename D::value_type;
    require(d_logits.extent(0) == saved.tokens(), "backward", "d_logits", saved.tokens(), d_logits.extent(0));
    const auto epsilon = static_cast<double>(D::c.norm_epsilon);
    const into mode = o.accumulate ? into::accumulate : into::replace;
    const auto d_x = saved.d_x(), d_part = saved.d_part();

    matmul<transpose::a>(ctx, d_logits, saved.normed(), detail::head_of(g), mode);
    matmul(ctx, d_logits, detail::head_of(w), d_part);
    rms_norm_backward(ctx, saved.last(), w.norm, d_part, d_x, g.norm, epsilon, mode);
    for (int i = D::layers - 1; i >= 0; --i) {
        const auto& b = w.blocks[static_cast<std::size_t>(i)];
        auto& to = g.blocks[static_cast<std::size_t>(i)];
        block_tape<D>& at = saved.block(i);

        auto own = detail::layer_options(o, i);
        own.accumulate = o.accumulate;
        backward(ctx, b.layer, batch<L>{.x = at.layer_input}, at.layer, d_x, d_part, to.layer, own);
        rms_norm_backward(ctx, at.middle, b.layer_norm, d_part, d_part, to.layer_norm, epsilon, mode);
        add(ctx, d_x, d_part, d_x);

        matmul<transpose::a>(ctx, d_x, at.attended, to.output, mode);
        matmul(ctx, d_x, b.output, saved.d_attended());
        attention_backward<D::attention, T>(ctx, at.query, at.key, at.value, at.log_sums, saved.d_attended(),
                                            saved.d_query(), saved.d_key(), saved.d_value(), saved.sequences());
        rotate_back(ctx, saved.rope(), saved.d_query(), saved.length());
        rotate_back(ctx, saved.rope(), saved.d_key(), saved.length());
        matmul<transpose::a>(ctx, saved.d_query(), at.normed, to.query, mode);
        matmul<transpose::a>(ctx, saved.d_key(), at.normed, to.key, mode);
        matmul<transpose::a>(ctx, saved.d_value(), at.normed, to.value, mode);
        matmul(ctx, saved.d_query(), b.query, d_part);
        matmul(ctx, saved.d_key(), b.key, d_part, into::accumulate);
        matmul(ctx, saved.d_value(), b.value, d_part, into::accumulate);
        rms_norm_backward(ctx, at.x, b.attention_norm, d_part, d_part, to.attention_norm, epsilon, mode);
        add(ctx, d_x, d_part, d_x);
    }
    // A tied embedding already holds the head's part.
    embedding_backward(ctx, saved.ids(), d_x, g.embedding, D::c.tied ? into::accumulate : mode);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
