// A decoder's forward pass.
//
//     ids ── embedding ──> x ──┬── norm ── query, key, value ── rotate ── attention ── output ──(+)──> middle
//                              └──────────────────────────────────────────────────────────┘
//     middle ──┬── norm ── layer ──(+)──> x of the next block … ── norm ── head ──> logits
//              └─────────────────────┘
#pragma once

#include <gatefold/cpu/wing.hpp>
#include <gatefold/moe/forward.hpp>
#include <gatefold/nn/tape.hpp>
#include <gatefold/ops/elementwise.hpp>
#include <gatefold/ops/embedding.hpp>
#include <gatefold/ops/matmul.hpp>
#include <gatefold/ops/norm.hpp>

namespace gatefold::inline v0 {

/// Numbers of a decoder's call.
template <decoder_type D>
struct decoder_options {
    options<typename D::layer_type> layer = {};  ///< of every layer; its field `layer` is set to the block's number
    bool accumulate = false;                     ///< backward adds to the gradients instead of overwriting
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// The matrix that turns a row of the last norm into logits: [vocabulary, hidden].
template <class Set>
auto& head_of(Set& set) {
    if constexpr (std::remove_const_t<Set>::decoder_type::c.tied)
        return set.embedding;
    else
        return set.head;
}

template <decoder_type D>
options<typename D::layer_type> layer_options(const decoder_options<D>& o, int block) {
    options<typename D::layer_type> own = o.layer;
    own.layer = static_cast<std::uint32_t>(block);
    own.accumulate = false;
    return own;
}

inline void check_ids(const char* function, view<const std::int32_t, dyn> ids, index_t count, int vocabulary) {
    require(ids.extent(0) == count, function, "ids", count, ids.extent(0));
    require(ids.data() != nullptr || count == 0, function, "ids", "memory", "null");
    for (index_t t = 0; t < count; ++t)
        require(ids[t] >= 0 && ids[t] < vocabulary, function, "ids", counted("ids from 0 to ", vocabulary - 1), ids[t]);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Logits of every token of the tape's sequences, left in saved.logits() with what backward needs.
///
/// Shapes:  ids [sequences · length], one sequence after the other.
/// Throws:  argument_error for another number of ids or an id outside the vocabulary; nothing is written then.
/// Bits:    the same for any number of threads; those of a token do not depend on later tokens or other sequences, as
///          long as the layer's router looks at one token at a time.
template <decoder_type D>
void forward(context<cpu>& ctx, const decoder_weights<D>& w, std::type_identity_t<view<const std::int32_t, dyn>> ids,
             decoder_tape<D>& saved, const decoder_options<D>& o = {}) {
    using L = typename D::layer_type;
    detail::check_ids("forward", ids, saved.tokens(), D::vocabulary);
    const auto epsilon = static_cast<double>(D::c.norm_epsilon);
    for (index_t t = 0; t < ids.extent(0); ++t) saved.ids()[t] = ids[t];
    embedding(ctx, ids, w.embedding, saved.block(0).x);
    for (int i = 0; i < D::layers; ++i) {
        const auto& b = w.blocks[static_cast<std::size_t>(i)];
        block_tape<D>& at = saved.block(i);
        rms_norm(ctx, at.x, b.attention_norm, at.normed, epsilon);
        matmul<transpose::b>(ctx, at.normed, b.query, at.query);
        matmul<transpose::b>(ctx, at.normed, b.key, at.key);
        matmul<transpose::b>(ctx, at.normed, b.value, at.value);
        rotate(ctx, saved.rope(), at.query.view(), saved.length());
        rotate(ctx, saved.rope(), at.key.view(), saved.length());
        attention<D::attention, typename D::value_type>(ctx, at.query, at.key, at.value, at.attended, at.log_sums,
                                                        saved.sequences());
        copy(ctx, at.x, at.middle);
        matmul<transpose::b>(ctx, at.attended, b.output, at.middle, into::accumulate);
        rms_norm(ctx, at.middle, b.layer_norm, at.layer_input, epsilon);
        const auto next = i + 1 < D::layers ? saved.block(i + 1).x.view() : saved.last();
        copy(ctx, at.middle, next);
        auto own = detail::layer_options(o, i);
        own.accumulate = true;
        forward(ctx, b.layer, batch<L>{.x = at.layer_input}, next, at.layer, own);
    }
    rms_norm(ctx, saved.last(), w.norm, saved.normed(), epsilon);
    matmul<transpose::b>(ctx, saved.normed(), detail::head_of(w), saved.logits());
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
