// A published model as numbers: what its blocks are made of, and what that adds up to.
//
//     published_model ──> parameters, active_parameters (three conventions)        model.layer ──> layer<model.layer,
//     T>
//
// Counts every learnable tensor of the text decoder: a tied embedding once, no rotary tables, no extra prediction
// layers.
#pragma once

#include <gatefold/moe/accounting.hpp>
#include <gatefold/moe/routers.hpp>
#include <gatefold/nn/config.hpp>

namespace gatefold::inline v0::models {

/// What a model's parameters consist of. `mixer` counts the attention of one block, `norms` the norm vectors of one
/// block. The first `dense_layers` blocks have a gated FFN of width `dense_ffn` in place of `layer`.
struct published_model {
    int vocabulary, hidden, layers;
    index_t mixer, norms;
    config layer;
    int dense_layers = 0, dense_ffn = 0;
    bool tied = false;
    bool operator==(const published_model&) const = default;
};

/// Grouped-query attention without biases: q, k, v and output projections.
constexpr index_t attention(index_t hidden, index_t heads, index_t key_value_heads, index_t head_size) {
    return 2 * hidden * head_size * (heads + key_value_heads);
}
/// Biases of the four projections.
constexpr index_t attention_biases(index_t hidden, index_t heads, index_t key_value_heads, index_t head_size) {
    return head_size * (heads + 2 * key_value_heads) + hidden;
}
/// Attention on a latent: query rank (0: queries are projected directly), key-value rank, and the sizes of the parts of
/// a head without rotation, with rotation, and of its values.
constexpr index_t latent_attention(index_t hidden, index_t heads, index_t query_rank, index_t rank, index_t plain,
                                   index_t rotated, index_t value) {
    const index_t queries = query_rank > 0 ? hidden * query_rank + query_rank + query_rank * heads * (plain + rotated)
                                           : hidden * heads * (plain + rotated);
    return queries + hidden * (rank + rotated) + rank + rank * heads * (plain + value) + heads * value * hidden;
}

constexpr index_t tables(const published_model& m) { return index_t{m.vocabulary} * m.hidden; }

/// All parameters of the model.
constexpr index_t parameters(const published_model& m) {
    const index_t sparse = m.layers - m.dense_layers;
    return tables(m) * (m.tied ? 1 : 2) + m.hidden + m.layers * (m.mixer + m.norms) +
           m.dense_layers * ffn_parameters(m.hidden, m.dense_ffn, activation::swiglu, false) +
           sparse * gatefold::parameters(m.layer);
}

/// Parameters that one token uses.
constexpr index_t active_parameters(const published_model& m, counting convention = counting::embedding_and_head) {
    const index_t sparse = m.layers - m.dense_layers;
    const index_t all = parameters(m) - sparse * (gatefold::parameters(m.layer) - gatefold::active_parameters(m.layer));
    if (convention == counting::head && !m.tied) return all - tables(m);
    if (convention == counting::neither) return all - tables(m) * (m.tied ? 1 : 2);
    return all;
}

}  // namespace gatefold::inline v0::models
