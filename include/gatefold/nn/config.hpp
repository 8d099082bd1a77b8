// A decoder as a value: its shape and the layer in its blocks, and what they cost.
//
//     decoder_config ──> rules ──> decoder<config, T> (nn/decoder.hpp)        decoder_config ──> counts, FLOPs, bytes
//
// Counting rules of published models: every learnable tensor, a tied embedding once; `active` leaves out the routed
// experts that a token does not visit.
#pragma once

#include <gatefold/moe/accounting.hpp>

namespace gatefold::inline v0 {

/// A causal decoder of equal blocks: RMSNorm, attention, RMSNorm, layer; then RMSNorm and head.
///
/// Left at zero: key_value_heads are as many as heads, head_size is hidden / heads, layer.hidden is hidden.
struct decoder_config {
    int vocabulary = 0, hidden = 0, layers = 0, heads = 0, key_value_heads = 0, head_size = 0;
    int context = 0;  ///< the longest sequence
    config layer = {};
    float rope_base = 10000;
    float norm_epsilon = 1e-5f;
    bool tied = false;  ///< the head is the embedding
    bool operator==(const decoder_config&) const = default;
};

/// The configuration with the fields filled in that may be left out.
constexpr decoder_config resolved(decoder_config c) {
    if (c.key_value_heads == 0) c.key_value_heads = c.heads;
    if (c.head_size == 0 && c.heads > 0) c.head_size = c.hidden / c.heads;
    if (c.layer.hidden == 0) c.layer.hidden = c.hidden;
    return c;
}

/// The first rule that a decoder's configuration breaks, as a sentence; nullptr where it breaks none.
constexpr const char* fault(const decoder_config& given) {
    if (given.vocabulary < 1) return "gatefold::decoder_config: vocabulary must be at least 1; set .vocabulary";
    if (given.hidden < 1) return "gatefold::decoder_config: hidden must be at least 1; set .hidden";
    if (given.layers < 1) return "gatefold::decoder_config: layers must be at least 1; set .layers";
    if (given.heads < 1) return "gatefold::decoder_config: heads must be at least 1; set .heads";
    if (given.context < 1) return "gatefold::decoder_config: context must be at least 1; set .context";
    if (given.head_size == 0 && given.hidden % given.heads != 0)
        return "gatefold::decoder_config: hidden must be a multiple of heads; change .heads or set .head_size";
    const decoder_config c = resolved(given);
    if (c.head_size < 2 || c.head_size % 2 != 0)
        return "gatefold::decoder_config: head_size must be even; change .heads or .head_size";
    if (c.key_value_heads < 1 || c.heads % c.key_value_heads != 0)
        return "gatefold::decoder_config: heads must be a multiple of key_value_heads; change .key_value_heads";
    if (c.layer.hidden != c.hidden)
        return "gatefold::decoder_config: the layer has another width; leave .layer.hidden out";
    if (!(c.rope_base > 1)) return "gatefold::decoder_config: rope_base must be above 1; set .rope_base";
    if (!(c.norm_epsilon > 0)) return "gatefold::decoder_config: norm_epsilon must be above 0; set .norm_epsilon";
    return fault(c.layer);
}

/// Parameters of one block's attention.
constexpr index_t attention_parameters(const decoder_config& given) {
    const decoder_config c = resolved(given);
    return 2 * index_t{c.hidden} * c.head_size * (c.heads + c.key_value_heads);
}

/// Parameters of one block: two norms, attention, layer.
constexpr index_t block_parameters(const decoder_config& given) {
    const decoder_config c = resolved(given);
    return 2 * index_t{c.hidden} + attention_parameters(c) + parameters(c.layer);
}

/// All parameters of the model.
constexpr index_t parameters(const decoder_config& c) {
    return index_t{c.vocabulary} * c.hidden * (c.tied ? 1 : 2) + c.hidden + c.layers * block_parameters(c);
}

/// What a published number of active parameters counts besides the blocks and the last norm.
enum class counting {
    embedding_and_head,  ///< both (Mixtral, DeepSeek, Qwen)
    head,                ///< a lookup reads one row: the head only (gpt-oss); the embedding where it is the head
    neither,             ///< neither (GLM-4.5, MiniMax-01)
};

/// Parameters that one token uses, in one of the three published conventions.
constexpr index_t active_parameters(const decoder_config& given, counting convention = counting::embedding_and_head) {
    const decoder_config c = resolved(given);
    const index_t table = index_t{c.vocabulary} * c.hidden, tables = c.tied ? 1 : 2;
    const index_t all = parameters(c) - c.layers * (parameters(c.layer) - active_parameters(c.layer));
    if (convention == counting::head && !c.tied) return all - table;
    if (convention == counting::neither) return all - tables * table;
    return all;
}

/// Floating-point operations of one token's forward pass that sees `keys` positions: the products of blocks and head,
/// scores and values of attention. Training costs three times that.
constexpr index_t flops(const decoder_config& given, index_t keys) {
    const decoder_config c = resolved(given);
    const index_t attention = 2 * attention_parameters(c) + 4 * index_t{c.heads} * c.head_size * keys;
    return c.layers * (attention + flops(c.layer)) + 2 * index_t{c.vocabulary} * c.hidden;
}

/// Bytes that one position takes in a cache of keys and values.
constexpr index_t cache_bytes(const decoder_config& given, int bytes) {
    const decoder_config c = resolved(given);
    return 2 * index_t{c.layers} * c.key_value_heads * c.head_size * bytes;
}

}  // namespace gatefold::inline v0
