// What a configuration costs, before anything is compiled or allocated: parameters, FLOPs, bytes, the largest index.
//
// Functions of the value, usable in constant expressions and on configurations that are read at run time. Counting
// rules: every learnable tensor of the layer, the selection bias included because checkpoints store it; `active` leaves
// out the routed experts that a token does not visit. A multiply-add counts as two operations.
#pragma once

#include <gatefold/config.hpp>

namespace gatefold::inline v0 {

/// Parameters of one FFN of the given widths.
constexpr index_t ffn_parameters(index_t width, index_t ffn, activation act, bool bias) {
    const index_t halves = is_gated(act) ? 2 : 1;
    return (halves + 1) * width * ffn + (bias ? halves * ffn + width : 0);
}

/// Parameters of one routed expert.
constexpr index_t expert_parameters(const config& c) { return ffn_parameters(expert_width(c), c.ffn, c.act, c.bias); }

/// Parameters of the router: projection, biases, scales, and what its transforms learn.
constexpr index_t router_parameters(const config& c) {
    if (is_dense(c)) return 0;
    const router_config& r = c.router;
    const index_t h = c.hidden, n = choices(c), p = r.projection_width;
    index_t count = 0;
    if (r.logits == projection::linear) count += n * h;
    if (r.logits == projection::two_layer) count += p * h + n * p;
    if (r.logits == projection::cosine) count += p * h + n * p + 1;
    if (r.bias) count += n;
    if (r.selection_bias != key_bias::none) count += n;
    if (r.input == router_input::rms_norm) count += h;
    if (r.expert_scale) count += n;
    if (r.transform == logit_transform::noisy_top_k) count += n * h;
    if (r.transform == logit_transform::residual) count += n * n;
    return count;
}

/// Parameters of what every token passes next to its experts: shared expert, latent projections.
constexpr index_t common_parameters(const config& c) {
    index_t count = 0;
    if (c.shared.ffn > 0) count += ffn_parameters(c.hidden, c.shared.ffn, c.shared.act, c.shared.bias);
    if (c.shared.gate) count += c.hidden;
    if (c.latent > 0) count += 2 * index_t{c.hidden} * c.latent + (c.latent_norm ? c.latent : 0);
    return count;
}

/// Parameters of the experts that compute nothing but a learned constant.
constexpr index_t free_parameters(const config& c) { return 3 * index_t{c.free.constant} * c.hidden; }

/// All parameters of the layer.
constexpr index_t parameters(const config& c) {
    return c.experts * expert_parameters(c) + router_parameters(c) + common_parameters(c) + free_parameters(c);
}

/// Parameters that one token uses when all its choices are experts with weights.
constexpr index_t active_parameters(const config& c) {
    const index_t visited = is_dense(c) ? 1 : slots(c) < c.experts ? slots(c) : c.experts;
    return parameters(c) - (c.experts - visited) * expert_parameters(c);
}

/// Floating-point operations of the products of one token's forward pass.
constexpr index_t flops(const config& c) {
    const index_t halves = is_gated(c.act) ? 2 : 1, shared_halves = is_gated(c.shared.act) ? 2 : 1;
    const index_t visited = is_dense(c) ? 1 : slots(c) < c.experts ? slots(c) : c.experts;
    index_t count = 2 * visited * (halves + 1) * expert_width(c) * c.ffn;
    count += 2 * (shared_halves + 1) * index_t{c.hidden} * c.shared.ffn;
    if (!is_dense(c)) {
        const router_config& r = c.router;
        if (r.logits == projection::linear) count += 2 * index_t{c.hidden} * choices(c);
        if (r.logits == projection::two_layer || r.logits == projection::cosine)
            count += 2 * index_t{r.projection_width} * (c.hidden + choices(c));
        if (r.transform == logit_transform::noisy_top_k) count += 2 * index_t{c.hidden} * choices(c);
        if (r.transform == logit_transform::residual) count += 2 * index_t{choices(c)} * choices(c);
    }
    if (c.shared.gate) count += 2 * index_t{c.hidden};
    if (c.latent > 0) count += 4 * index_t{c.hidden} * c.latent;
    return count;
}

/// The fewest bytes that a forward pass over `tokens` tokens moves when it visits `active_experts` distinct experts and
/// nothing stays in a cache: those experts' weights, router, shared and latent weights, x and y once.
///
/// `bytes` is the size of a stored element, `router_bytes` that of the router's.
constexpr index_t minimum_bytes(const config& c, index_t tokens, index_t active_experts, int bytes,
                                int router_bytes = 0) {
    if (router_bytes == 0) router_bytes = bytes;
    return bytes * (active_experts * expert_parameters(c) + common_parameters(c) + free_parameters(c)) +
           router_bytes * router_parameters(c) + 2 * bytes * tokens * c.hidden;
}

/// Experts that `tokens` tokens are expected to touch when each draws k of E uniformly: E (1 - (1 - k/E)^T).
constexpr double expected_experts(const config& c, index_t tokens) {
    const double missed = 1.0 - static_cast<double>(c.top_k) / choices(c);
    double none = 1;
    for (double power = missed; tokens > 0; tokens /= 2, power *= power)
        if (tokens % 2) none *= power;
    return c.experts * (1 - none);
}

/// Rows that `tokens` tokens may bring to the experts together: the size of every row buffer.
constexpr index_t max_rows(const config& c, index_t tokens) { return tokens * slots(c); }

/// The largest element index that a call over `tokens` tokens forms in any tensor of the layer.
constexpr index_t largest_index(const config& c, index_t tokens) {
    const index_t halves = is_gated(c.act) ? 2 : 1;
    const index_t all[] = {index_t{c.experts} * halves * c.ffn * expert_width(c),
                           tokens * c.hidden,
                           max_rows(c, tokens) * halves * c.ffn,
                           max_rows(c, tokens) * expert_width(c),
                           tokens * choices(c),
                           2 * index_t{c.shared.ffn} * c.hidden};
    index_t largest = 0;
    for (const index_t n : all) largest = n > largest ? n : largest;
    return largest;
}

/// The most tokens of one call: a pair (token, slot) is numbered by an int32.
constexpr index_t most_tokens(const config& c) { return 0x7fffffff / slots(c); }

}  // namespace gatefold::inline v0
