// Balancing without a loss: controllers that move the selection bias, or the coefficient of a loss, by what a step did.
//
//     counts of every micro-batch ── add_expert_counts ──> counts ── update(controller, bias, counts), once per
//     optimiser step ──> bias
//
// The bias enters the choice only, never the weights, so nothing of it reaches the gradients. It is a buffer of the
// weights and saved with them; what else a controller remembers is in plain fields and views of the caller.
#pragma once

#include <cstdint>

#include <gatefold/core/context.hpp>
#include <gatefold/core/error.hpp>
#include <gatefold/core/view.hpp>
#include <gatefold/moe/router_math.hpp>

namespace gatefold::inline v0 {

/// b_i += rate · sign(mean count - count_i): auxiliary-loss-free balancing (arXiv 2408.15664), DeepSeek-V3 with 0.001.
struct sign_bias {
    double rate = 0.001;
};

/// b_i += rate · (mean count - count_i): the variant of the same paper without the sign.
struct additive_bias {
    double rate = 0.001;
};

/// Steers how many of a token's experts are real where some compute nothing (LongCat-Flash, MoE++): the error of a real
/// expert is share / real - count_i / Σ count, of the others 0, and its bias follows as a PID controller in the form
/// that adds steps: b += integral · e + proportional · (e - e₁) + derivative · (e - 2 e₁ + e₂).
///
/// LongCat-Flash has the first term alone.
struct pid_bias {
    int real = 1;      ///< experts with weights; they come first
    double share = 1;  ///< share of all choices that real experts should get: wanted per token / top_k
    double integral = 0.001;
    double proportional = 0;
    double derivative = 0;
};

/// b_i = -(T k / E + 1)-th largest over the tokens of z_i - α, α the (k + 1)-th largest key z + b of a token:
/// Megatron's quantile balancing, for keys that are logits (key_bias::logit).
struct quantile_bias {
    int top_k = 1;
};

/// The coefficient of losses::relu_sparsity: multiplied by `rate` while fewer scores than wanted are zero, divided by
/// it while more are (ReMoE, arXiv 2412.14711).
struct relu_coefficient {
    double target = 0;  ///< wanted share of zeros: 1 - k / E
    double rate = 1.2;
    double value = 1e-8;
};

/// v_e = decay · v_e + (1 - decay) · mean of what expert e returned in a step, for estimator::default_vectors (arXiv
/// 2504.12463). An expert without tokens keeps its vector. Its update is in gatefold/moe/default_vectors.hpp.
struct output_average {
    double decay = 0.9;
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// The rank-th largest (from 1) of value(0) .. value(n - 1); NaN counts as -inf. A bit of the answer per pass: nothing
/// is moved and nothing allocated.
template <class A, class Value>
A nth_largest(index_t n, index_t rank, Value value) {
    using word = order_word<A>;
    word found = 0;
    for (int bit = static_cast<int>(sizeof(word)) * 8 - 1; bit >= 0; --bit) {
        const word candidate = found | (word{1} << bit);
        index_t above = 0;
        for (index_t i = 0; i < n; ++i) above += order_key(value(i)) >= candidate ? 1 : 0;
        if (above >= rank) found = candidate;
    }
    for (index_t i = 0; i < n; ++i)
        if (order_key(value(i)) == found) return is_nan(value(i)) ? minus_infinity<A> : value(i);
    return minus_infinity<A>;
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Moves the bias [N] by one step of sign_bias or additive_bias for the counts [N] of one optimiser step.
///
/// Throws: argument_error for extents that differ; the bias is untouched then.
template <class Controller, class A, int N>
    requires(__is_same(Controller, sign_bias) || __is_same(Controller, additive_bias))
void update(const Controller& controller, view<A, N> bias, std::type_identity_t<view<const index_t, dyn>> counts) {
    require(bias.data() && bias.extent(0) == counts.extent(0), "update", "counts", bias.extent(0), counts.extent(0));
    index_t total = 0;
    for (const index_t count : counts) total += count;
    const index_t n = counts.extent(0);
    for (index_t i = 0; i < n; ++i) {
        // Compared as total against n · count: whole numbers, so that a tie is a tie.
        const index_t difference = total - n * counts[i];
        double step = 0;
        if constexpr (__is_same(Controller, sign_bias))
            step = difference > 0 ? controller.rate : difference < 0 ? -controller.rate : 0;
        else
            step = mul(controller.rate, static_cast<double>(difference) / static_cast<double>(n));
        bias[i] = static_cast<A>(static_cast<double>(bias[i]) + step);
    }
}

/// Moves the bias [N] by one step of pid_bias. `history` [2, N] holds the errors of the last two steps: zeros before
/// the first, saved and restored with the bias; a view without memory where the controller has only its integral term.
///
/// Throws: argument_error for extents that differ, more real experts than there are; nothing is written then.
template <class A, int N>
void update(const pid_bias& controller, view<A, N> bias, std::type_identity_t<view<const index_t, dyn>> counts,
            std::type_identity_t<view<double, 2, dyn>> history = {}) {
    const index_t n = counts.extent(0);
    require(bias.data() && bias.extent(0) == n, "update", "counts", bias.extent(0), n);
    require(controller.real >= 1 && controller.real <= n, "update", "real", "a number of experts", controller.real);
    if (history.data())
        require(history.extent(1) == n, "update", "history", n, history.extent(1));
    else
        require(controller.proportional == 0 && controller.derivative == 0, "update", "history",
                "memory for the errors of two steps", "none");
    index_t total = 0;
    for (const index_t count : counts) total += count;
    if (total == 0) return;
    for (index_t i = 0; i < controller.real; ++i) {
        const double error =
            controller.share / controller.real - static_cast<double>(counts[i]) / static_cast<double>(total);
        double step = mul(controller.integral, error);
        if (history.data()) {
            const double last = history(0, i), before = history(1, i);
            step = fma(controller.proportional, error - last, step);
            step = fma(controller.derivative, (error - last) - (last - before), step);
            history(1, i) = last;
            history(0, i) = error;
        }
        bias[i] = static_cast<A>(static_cast<double>(bias[i]) + step);
    }
}

/// Sets the bias [N] from the logits [T, N] of one step's tokens (without padding), routed with the present bias.
///
/// Throws: argument_error for extents that differ, T k that is no multiple of N, k that is not below N; the bias is
///         untouched then. std::bad_alloc.
template <class A, int N>
void update(context<cpu>& ctx, const quantile_bias& controller, view<A, N> bias,
            std::type_identity_t<view<const A, dyn, N>> logits) {
    const index_t tokens = logits.extent(0), n = bias.extent(0), k = controller.top_k;
    require(bias.data() && logits.extent(1) == n, "update", "logits", n, logits.extent(1));
    require(k >= 1 && k < n, "update", "top_k", detail::counted("1 to ", n - 1), k);
    require(tokens * k % n == 0, "update", "logits", "tokens of which each expert can have as many", tokens);
    if (tokens == 0) return;
    A* thresholds = reinterpret_cast<A*>(ctx.workspace(static_cast<std::size_t>(tokens) * sizeof(A)));
    const auto shares = [&](index_t total, auto body) {
        const int parts = static_cast<int>(total < ctx.threads() ? total : ctx.threads());
        ctx.parallel(parts, [&](int part) {
            for (index_t i = total * part / parts; i < total * (part + 1) / parts; ++i) body(i);
        });
    };
    shares(tokens, [&](index_t t) {
        thresholds[t] = detail::nth_largest<A>(n, k + 1, [&](index_t i) { return logits(t, i) + bias[i]; });
    });
    const index_t each = tokens * k / n;
    shares(n, [&](index_t i) {
        bias[i] = -detail::nth_largest<A>(tokens, each + 1, [&](index_t t) { return logits(t, i) - thresholds[t]; });
    });
}

/// One step of the coefficient after a step in which `sparsity` of the scores were zero.
inline void update(relu_coefficient& controller, double sparsity) {
    require(sparsity >= 0 && sparsity <= 1, "update", "sparsity", "a share from 0 to 1", sparsity);
    if (sparsity < controller.target) controller.value *= controller.rate;
    if (sparsity > controller.target) controller.value /= controller.rate;
}

/// The share of logits [T, N] that are not positive; 0 without tokens.
template <class A, int N>
double sparsity_of(view<A, dyn, N> logits) {
    index_t zeros = 0;
    for (index_t t = 0; t < logits.extent(0); ++t)
        for (index_t i = 0; i < logits.extent(1); ++i) zeros += logits(t, i) > 0 ? 0 : 1;
    return logits.size() == 0 ? 0 : static_cast<double>(zeros) / static_cast<double>(logits.size());
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
