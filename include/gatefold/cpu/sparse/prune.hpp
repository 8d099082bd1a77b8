// Which blocks of an expert's matrices go: those of least norm.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <gatefold/core/math.hpp>
#include <gatefold/cpu/experts/packed.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// A matrix in blocks of 32 rows × 32 columns; with a gate, of 16 rows and the 16 that stand `rows` below them.
template <class T>
struct pruned_matrix {
    static constexpr int side = 32;
    T* data;
    index_t rows, columns;  ///< features or outputs, and inputs
    bool gated;

    index_t across() const { return ceil_div<index_t>(columns, side); }
    index_t blocks() const { return ceil_div<index_t>(rows, gated ? side / 2 : side) * across(); }

    /// Calls f(element) for every element of a block.
    template <class F>
    void each(index_t block, F&& f) const {
        const index_t high = gated ? side / 2 : side, r0 = block / across() * high, c0 = block % across() * side;
        for (int half = 0; half < (gated ? 2 : 1); ++half)
            for (index_t r = r0; r < (std::min)(r0 + high, rows); ++r)
                for (index_t c = c0; c < (std::min)(c0 + side, columns); ++c) f(data[(half * rows + r) * columns + c]);
    }
};

template <class T>
void prune_matrix(const pruned_matrix<T>& m, double fraction) {
    const auto n = static_cast<std::size_t>(m.blocks()),
               least = static_cast<std::size_t>(std::round(fraction * static_cast<double>(n)));
    std::vector<double> squares(n);
    std::vector<index_t> order(n);
    for (std::size_t b = 0; b < n; ++b) {
        double sum = 0;
        m.each(static_cast<index_t>(b), [&](const T& value) {
            const auto x = static_cast<double>(to_accumulate(value));
            sum = gatefold::fma(x, x, sum);
        });
        squares[b] = sum == sum ? sum : (std::numeric_limits<double>::infinity)();  // NaNs are kept longest
        order[b] = static_cast<index_t>(b);
    }
    std::sort(order.begin(), order.end(), [&](index_t a, index_t b) {
        const double x = squares[static_cast<std::size_t>(a)], y = squares[static_cast<std::size_t>(b)];
        return x < y || (!(y < x) && a < b);
    });
    for (std::size_t i = 0; i < least; ++i) m.each(order[i], [](T& value) { value = T{}; });
}

template <layer_type L>
void prune_layer(context<cpu>& ctx, weights<L, cpu>& w, double fraction) {
    using T = typename L::value_type;
    ctx.parallel(L::local_experts + (L::shared_ffn > 0 ? 1 : 0), [&](int e) {
        if (e < L::local_experts) {
            const auto one = w.expert(e);
            prune_matrix<T>({one.gate_up.data(), L::ffn, L::width, L::is_gated}, fraction);
            prune_matrix<T>({one.down.data(), L::width, L::ffn, false}, fraction);
        } else if constexpr (L::shared_ffn > 0) {
            prune_matrix<T>({w.shared_gate_up.data(), L::shared_ffn, L::hidden, is_gated(L::c.shared.act)}, fraction);
            prune_matrix<T>({w.shared_down.data(), L::hidden, L::shared_ffn, false}, fraction);
        }
    });
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
