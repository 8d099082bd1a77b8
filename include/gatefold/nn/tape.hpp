// What a decoder's forward pass keeps: activations of every block for the backward pass, and the memory of that pass.
//
//     forward ──> logits, block(i).layer: routing, plan, logit gradients for losses ──> backward
#pragma once

#include <array>

#include <gatefold/moe/tape.hpp>
#include <gatefold/nn/decoder.hpp>
#include <gatefold/nn/rope.hpp>

namespace gatefold::inline v0 {

/// Activations of one block.
template <decoder_type D>
struct block_tape {
    using T = typename D::value_type;
    tensor<T, dyn, D::hidden> x;              ///< what enters the block
    tensor<T, dyn, D::hidden> normed;         ///< what attention reads
    tensor<T, dyn, D::query_width> query;     ///< rotated
    tensor<T, dyn, D::key_width> key, value;  ///< the keys rotated
    tensor<T, dyn, D::query_width> attended;
    tensor<accumulate_t<T>, dyn, D::attention.heads> log_sums;
    tensor<T, dyn, D::hidden> middle;       ///< x plus attention
    tensor<T, dyn, D::hidden> layer_input;  ///< what the layer reads
    tape<typename D::layer_type> layer;

    block_tape() = default;
    block_tape(context<cpu>& ctx, index_t tokens)
        : x(make_tensor<T, dyn, D::hidden>(ctx, tokens)),
          normed(make_tensor<T, dyn, D::hidden>(ctx, tokens)),
          query(make_tensor<T, dyn, D::query_width>(ctx, tokens)),
          key(make_tensor<T, dyn, D::key_width>(ctx, tokens)),
          value(make_tensor<T, dyn, D::key_width>(ctx, tokens)),
          attended(make_tensor<T, dyn, D::query_width>(ctx, tokens)),
          log_sums(make_tensor<accumulate_t<T>, dyn, D::attention.heads>(ctx, tokens)),
          middle(make_tensor<T, dyn, D::hidden>(ctx, tokens)),
          layer_input(make_tensor<T, dyn, D::hidden>(ctx, tokens)),
          layer(ctx, tokens) {}
};

/// Owned memory for one forward and backward pass over `sequences` sequences of `length` tokens each; filled anew by
/// every forward call.
template <decoder_type D>
class decoder_tape {
    using T = typename D::value_type;
    using A = accumulate_t<T>;

public:
    using decoder_type = D;

    decoder_tape() = default;
    /// Throws: argument_error for no sequences or a length outside the context, std::bad_alloc.
    decoder_tape(context<cpu>& ctx, index_t sequences, index_t length)
        : sequences_(sequences),
          length_(length),
          rope_(ctx, checked(sequences, length), static_cast<double>(D::c.rope_base)),
          last_(make_tensor<T, dyn, D::hidden>(ctx, tokens())),
          normed_(make_tensor<T, dyn, D::hidden>(ctx, tokens())),
          logits_(make_tensor<A, dyn, D::vocabulary>(ctx, tokens())),
          ids_(make_tensor<std::int32_t, dyn>(ctx, tokens())),
          d_x_(make_tensor<T, dyn, D::hidden>(ctx, tokens())),
          d_part_(make_tensor<T, dyn, D::hidden>(ctx, tokens())),
          d_query_(make_tensor<T, dyn, D::query_width>(ctx, tokens())),
          d_attended_(make_tensor<T, dyn, D::query_width>(ctx, tokens())),
          d_key_(make_tensor<T, dyn, D::key_width>(ctx, tokens())),
          d_value_(make_tensor<T, dyn, D::key_width>(ctx, tokens())) {
        for (auto& b : blocks_) b = block_tape<D>(ctx, tokens());
    }

    index_t sequences() const { return sequences_; }
    index_t length() const { return length_; }
    index_t tokens() const { return sequences_ * length_; }

    /// [sequences · length, vocabulary] of the last forward call.
    view<A, dyn, D::vocabulary> logits() { return logits_.view(); }
    /// Ids of the last forward call.
    view<std::int32_t, dyn> ids() { return ids_.view(); }
    block_tape<D>& block(int i) { return blocks_[static_cast<std::size_t>(i)]; }

    const rope_table<T, D::c.head_size>& rope() const { return rope_; }
    view<T, dyn, D::hidden> last() { return last_.view(); }      ///< what leaves the last block
    view<T, dyn, D::hidden> normed() { return normed_.view(); }  ///< what the head reads

    // Memory of the backward pass.
    view<T, dyn, D::hidden> d_x() { return d_x_.view(); }
    view<T, dyn, D::hidden> d_part() { return d_part_.view(); }
    view<T, dyn, D::query_width> d_query() { return d_query_.view(); }
    view<T, dyn, D::query_width> d_attended() { return d_attended_.view(); }
    view<T, dyn, D::key_width> d_key() { return d_key_.view(); }
    view<T, dyn, D::key_width> d_value() { return d_value_.view(); }

private:
    static index_t checked(index_t sequences, index_t length) {
        require(sequences >= 1, "decoder_tape", "sequences", "one or more", sequences);
        require(length >= 1 && length <= D::context, "decoder_tape", "length",
                detail::counted("from 1 to ", D::context), length);
        return length;
    }

    index_t sequences_ = 0, length_ = 0;
    rope_table<T, D::c.head_size> rope_;
    std::array<block_tape<D>, D::layers> blocks_;
    tensor<T, dyn, D::hidden> last_, normed_;
    tensor<A, dyn, D::vocabulary> logits_;
    tensor<std::int32_t, dyn> ids_;
    tensor<T, dyn, D::hidden> d_x_, d_part_;
    tensor<T, dyn, D::query_width> d_query_, d_attended_;
    tensor<T, dyn, D::key_width> d_key_, d_value_;
};

}  // namespace gatefold::inline v0
