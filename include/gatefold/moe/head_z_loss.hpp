// The z-loss of a language model's head: keeps the logarithm of the sum of exponentials of its logits near zero.
//
//     logits[T,V] ── cross_entropy ──> d_logits ── add_head_z_loss ──> d_logits, as cross_entropy left it and more
#pragma once

#include <cstdint>
#include <type_traits>

#include <gatefold/core/context.hpp>
#include <gatefold/moe/check.hpp>
#include <gatefold/moe/router_math.hpp>

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// coefficient · mean over the tokens of lse(logits)², T5X with 1e-4; its gradient is added to d_logits. Tokens whose
/// target is `ignore` count nowhere; without targets all count.
///
/// Shapes:  logits, d_logits [T, V], targets [T].
/// Throws:  argument_error for views that do not fit, std::bad_alloc; nothing is written then.
/// Bits:    the same for any number of threads.
template <class T, int V>
double add_head_z_loss(context<cpu>& ctx, view<const T, dyn, V> logits, std::type_identity_t<view<T, dyn, V>> d_logits,
                       double coefficient = 1e-4, view<const std::int32_t, dyn> targets = {},
                       std::int32_t ignore = -100) {
    const index_t rows = logits.extent(0), n = logits.extent(1);
    detail::check_view("add_head_z_loss", "logits", logits, rows);
    detail::check_view("add_head_z_loss", "d_logits", d_logits, rows);
    require(d_logits.extent(1) == n, "add_head_z_loss", "d_logits", n, d_logits.extent(1));
    if (targets.data()) detail::check_view("add_head_z_loss", "targets", targets, rows);
    const auto counts = [&](index_t t) { return !targets.data() || targets[t] != ignore; };
    index_t valid = 0;
    for (index_t t = 0; t < rows; ++t) valid += counts(t) ? 1 : 0;
    if (valid == 0) return 0;
    double* each = reinterpret_cast<double*>(ctx.workspace(static_cast<std::size_t>(rows) * sizeof(double)));
    const double step = coefficient / static_cast<double>(valid);
    const int parts = static_cast<int>(rows < ctx.threads() ? rows : ctx.threads());
    ctx.parallel(parts, [&](int part) {
        for (index_t t = rows * part / parts; t < rows * (part + 1) / parts; ++t) {
            each[t] = 0;
            if (!counts(t)) continue;
            const T* row = logits.row(t);
            const auto z = [&](index_t i) { return static_cast<double>(to_accumulate(row[i])); };
            double m = detail::minus_infinity<double>, sum = 0;
            for (index_t i = 0; i < n; ++i) m = z(i) > m ? z(i) : m;
            if (!(m > detail::minus_infinity<double>)) continue;
            for (index_t i = 0; i < n; ++i) sum += detail::softmax_term(z(i), m);
            const double lse = m + gatefold::log(sum);
            each[t] = lse;
            for (index_t i = 0; i < n; ++i) {
                T& d = d_logits.row(t)[i];
                const double more = mul(2 * step * lse, detail::softmax_term(z(i), m) / sum);
                d = from_accumulate<T>(static_cast<accumulate_t<T>>(static_cast<double>(to_accumulate(d)) + more));
            }
        }
    });
    double value = 0;
    for (index_t t = 0; t < rows; ++t) value = fma(mul(step, each[t]), each[t], value);
    return value;
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
