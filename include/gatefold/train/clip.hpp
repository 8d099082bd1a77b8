// The norm of all gradients together, and the factor that keeps it below a bound.
//
//     gradients ── blocks of 4096, each summed in 16 lanes ── the sums in double, upwards ──> norm ──> factor for the
//     step
#pragma once

#include <cmath>

#include <gatefold/core/context.hpp>
#include <gatefold/moe/weights.hpp>
#include <gatefold/nn/decoder.hpp>
#include <gatefold/ops/rows.hpp>

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// The Euclidean norm of all gradients of a layer or a decoder; the same bits for any number of threads.
template <class Gradients>
double global_norm(context<cpu>& ctx, const Gradients& g) {
    namespace simd = detail::on_cpu;
    constexpr index_t block = 4096;
    double total = 0;
    for_each_parameter(
        [&](const char*, const auto& slot) {
            using A = typename std::remove_cvref_t<decltype(slot)>::value_type;
            const index_t n = slot.size(), blocks = ceil_div(n, block);
            double* const sums =
                reinterpret_cast<double*>(ctx.workspace(static_cast<std::size_t>(blocks) * sizeof(double)));
            simd::share_out(ctx, blocks, block, [&](index_t first, index_t last) {
                for (index_t b = first; b < last; ++b) {
                    const A* const from = slot.data() + b * block;
                    sums[b] = static_cast<double>(simd::sum_of_row<A>(
                        block < n - b * block ? block : n - b * block,
                        [](simd::vec<A> sum, simd::vec<A> v) { return simd::fma(v, v, sum); }, from));
                }
            });
            for (index_t b = 0; b < blocks; ++b) total += sums[b];
        },
        g);
    return std::sqrt(total);
}

/// What gradients of this norm are multiplied by so that their norm does not pass `most`: min(1, most / (norm + 1e-6)).
/// 1 where most is 0: no bound.
inline double clip_factor(double norm, double most) {
    if (!(most > 0)) return 1;
    const double factor = most / (norm + 1e-6);
    return factor < 1 ? factor : 1;
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
