// The three grouped products of the layer on run-time extents: forward and backward of experts straight from their
// weights, and the matrix product of the tensor operations.
//
//     product_nt   out[r, n]   = Σ_k a[r, k] · w_e[n, k]      rows r of group e; weight e begins at w + e · w_step
//     product_nn   out[r, n]   = Σ_k a[r, k] · w_e[k, n]
//     product_tn   out_e[m, n] = Σ_r a[r, m] · b[r, n]        over the rows of group e; zeros where it has none
//
//     template <context, A, B, Out>
//     void product_nt(ctx, scratch, groups, rows_of<A> a, weights_of<B> w, int n, int k, matrix<Out> out, accumulate);
//     void product_nn(ctx, scratch, groups, rows_of<A> a, weights_of<B> w, int n, int k, matrix<Out> out, accumulate);
//     void product_tn(ctx, scratch, groups, rows_of<A> a, rows_of<B> b, int m, int n, matrix<Out> out, accumulate);
//     scratch: product_scratch_bytes(ctx.threads()) bytes, aligned to 64; nothing else is allocated.
//
// Types are float, double, bf16 and f16, freely mixed; sums are kept in double where an operand is, in float otherwise.
// Every output is one chain of fused multiply-adds in ascending k (or r) that starts from +0, or from the old value of
// out when accumulating, and is rounded once: the bits do not depend on threads, blocks, or which rows are present.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <gatefold/cpu/gemm.hpp>
#include <gatefold/cpu/pack.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Rows [offsets[e], offsets[e + 1]) belong to expert e; without offsets all `rows` belong to the one expert.
struct grouping {
    int experts = 1;
    const std::int32_t* offsets = nullptr;
    index_t rows = 0;

    GATEFOLD_INLINE index_t begin(int e) const { return offsets ? offsets[e] : 0; }
    GATEFOLD_INLINE index_t end(int e) const { return offsets ? offsets[e + 1] : rows; }
    GATEFOLD_INLINE index_t count(int e) const { return end(e) - begin(e); }
};

/// The matrices of all experts: row i of expert e at data + e · step + i · stride.
template <class T>
struct weights_of {
    const T* data;
    index_t stride, step = 0;
};

/// Where results go: row i (of expert e, for product_tn) at data + e · step + i · stride.
template <class T>
struct matrix {
    T* data;
    index_t stride, step = 0;
};

/// How a product is cut: what a thread works on stays in its second-level cache.
struct product_blocks {
    static constexpr int rows = 112, columns = 512, depth = 512, panel = 32;
    /// Panels packed together, so that what is read of a row of weights is a few lines long.
    static constexpr int together = 4;
    static constexpr std::size_t bytes = sizeof(double) * (std::size_t{rows} * depth + std::size_t{rows} * columns +
                                                           std::size_t{panel} * together * depth + 64);
};

/// Scratch of the products, for any extents and types.
constexpr std::size_t product_scratch_bytes(int threads) {
    return static_cast<std::size_t>(threads) * product_blocks::bytes;
}

template <class A, class B>
using sum_of = std::conditional_t<std::is_same_v<A, double> || std::is_same_v<B, double>, double, float>;

/// Shares [0, total) of a cost among `parts`; the share of a part begins here.
GATEFOLD_INLINE index_t share(index_t total, int part, int parts) {
    return total / parts * part + total % parts * part / parts;
}

/// The rows × columns blocks of one group's output.
struct block_grid {
    index_t rows, columns, row_blocks, column_blocks;
    index_t tasks() const { return row_blocks * column_blocks; }
};

/// Runs one product: for every group, `extent(e)` gives (rows, columns, depth) of its output and sum, `pack_rows` and
/// `pack_panels` bring operands into the kernels' order, `target(e)` is where the output lies.
template <class Sum, class Context, class Extent, class PackRows, class PackPanels, class Target>
void run_product(Context& ctx, std::byte* scratch, int groups, bool accumulate, Extent extent, PackRows pack_rows,
                 PackPanels pack_panels, Target target) {
    using form = chain<Sum>;
    using blocks = product_blocks;
    constexpr int width = lanes<Sum>, panel = 2 * width;
    static_assert(panel <= blocks::panel);
    const int parts = ctx.threads();

    // Column blocks shrink until every thread has a few tasks; that changes who computes an output, not its bits.
    index_t all = 0;
    for (int e = 0; e < groups; ++e) {
        const auto x = extent(e);
        all += ceil_div<index_t>(x.rows, blocks::rows) * ceil_div<index_t>(x.columns, blocks::columns);
    }
    index_t block_columns = blocks::columns;
    while (all < 4 * parts && block_columns > 2 * panel && parts > 1) block_columns /= 2, all *= 2;
    const auto grid = [&](int e) {
        const auto x = extent(e);
        return block_grid{x.rows, x.columns, ceil_div<index_t>(x.rows, blocks::rows),
                          ceil_div<index_t>(x.columns, block_columns)};
    };
    // A task costs its arithmetic and, per output, about what eight rows would for packing.
    const auto cost = [&](int e) {
        const auto x = extent(e);
        const block_grid g = grid(e);
        return g.tasks() ? (x.rows / g.row_blocks + 8) * (x.columns / g.column_blocks + 1) * (x.depth + 8) : 0;
    };
    index_t total = 0;
    for (int e = 0; e < groups; ++e) total += grid(e).tasks() * cost(e);

    ctx.parallel(parts, [&](int part) {
        std::byte* memory = scratch + static_cast<std::size_t>(part) * blocks::bytes;
        Sum* a = reinterpret_cast<Sum*>(memory);
        Sum* c = a + index_t{blocks::rows} * blocks::depth;
        Sum* b = c + index_t{blocks::rows} * blocks::columns;
        const index_t low = share(total, part, parts), high = share(total, part + 1, parts);
        index_t before = 0;
        for (int e = 0; e < groups; ++e) {
            const block_grid g = grid(e);
            const auto x = extent(e);
            const index_t each = cost(e), first = before;
            before += each * g.tasks();
            if (g.tasks() == 0 || before <= low || first >= high) continue;
            const auto out = target(e);
            for (index_t task = 0; task < g.tasks(); ++task) {
                const index_t begins = first + task * each;
                if (begins < low || begins >= high) continue;
                const index_t m = task / g.column_blocks, n = task % g.column_blocks;
                const index_t r0 = g.rows * m / g.row_blocks, r1 = g.rows * (m + 1) / g.row_blocks;
                const index_t c0 = n * block_columns;
                const index_t columns = x.columns - c0 < block_columns ? x.columns - c0 : block_columns;
                const index_t padded = round_up<index_t>(columns, panel);
                const row_tiles tiles(r1 - r0, form::max_rows);
                // Sums of whole panels are kept in the output itself where it has their type.
                using target_type = std::remove_reference_t<decltype(*out.data)>;
                constexpr bool in_place = std::is_same_v<target_type, Sum>;
                const index_t whole = in_place ? columns / panel * panel : 0;
                const auto keep = [&](index_t from, bool load_old) {
                    for (index_t r = r0; r < r1; ++r)
                        for (index_t j = from; j < padded; j += width)
                            store(c + (r - r0) * padded + j,
                                  load_old ? load_first<Sum>(out.data + r * out.stride + c0 + j, columns - j)
                                           : zeros<Sum>());
                };
                if (x.depth == 0)
                    keep(0, accumulate);
                else if (accumulate)
                    keep(whole, true);
                for (index_t k0 = 0; k0 < x.depth; k0 += blocks::depth) {
                    const index_t depth = x.depth - k0 < blocks::depth ? x.depth - k0 : blocks::depth;
                    for (index_t t = 0; t < tiles.tiles; ++t)
                        pack_rows(e, r0 + tiles.begin(t), static_cast<int>(tiles.begin(t + 1) - tiles.begin(t)), k0,
                                  depth, a + tiles.begin(t) * depth);
                    for (index_t j = 0; j < padded; j += panel) {
                        const index_t q = j / panel % blocks::together;
                        if (q == 0) {
                            const index_t left = (padded - j) / panel;
                            pack_panels(e, c0 + j, left < blocks::together ? static_cast<int>(left) : blocks::together,
                                        x.columns, k0, depth, b);
                        }
                        for (index_t t = 0; t < tiles.tiles; ++t) {
                            const index_t r = tiles.begin(t);
                            const int height = static_cast<int>(tiles.begin(t + 1) - r);
                            Sum* to = c + r * padded + j;
                            index_t row = padded;
                            if constexpr (in_place)
                                if (j < whole) to = out.data + (r0 + r) * out.stride + c0 + j, row = out.stride;
                            kernel_for<form, 2>(height)(depth, a + r * depth, b + q * panel * depth, width * depth, to,
                                                        row, k0 == 0 && !accumulate,
                                                        lookahead{0, reinterpret_cast<const char*>(memory), 0, 0});
                        }
                    }
                }
                for (index_t r = r0; r < r1; ++r)
                    for (index_t j = x.depth == 0 ? 0 : whole; j < columns; j += width)
                        store_first(out.data + r * out.stride + c0 + j, load<Sum>(c + (r - r0) * padded + j),
                                    columns - j);
            }
        }
    });
}

/// What a group of a product amounts to.
struct product_extent {
    index_t rows, columns, depth;
};

/// Brings rows [r, r + height) of `a`, columns [k0, k0 + depth), into the order [depth][height].
template <class Sum, class T>
GATEFOLD_INLINE void pack_across(const rows_of<T>& a, index_t r, int height, index_t k0, index_t depth, Sum* to) {
    row_reader<Sum, T> readers[chain<Sum>::max_rows];
    Sum factors[chain<Sum>::max_rows];
    for (int i = 0; i < height; ++i) {
        if (a.factor) factors[i] = static_cast<Sum>(a.factor_of(r + i));
        readers[i] = {a.row(r + i) + k0, depth, a.factor ? factors + i : nullptr};
    }
    interleave(to, height, readers, height, depth);
}

/// Brings columns [m, m + height) of rows [r0, r0 + depth) of `a` into the order [depth][height]; of the columns from
/// `columns` on nothing is read and zeros are written.
template <class Sum, class T>
GATEFOLD_INLINE void pack_along(const rows_of<T>& a, index_t r0, index_t depth, index_t m, int height, index_t columns,
                                Sum* to) {
    constexpr int width = lanes<Sum>;
    const index_t left = columns - m;
    for (index_t k = 0; k < depth; ++k, to += height) {
        const T* from = a.row(r0 + k) + m;
        const bool scaled = a.factor != nullptr;
        const vec<Sum> factor = broadcast<Sum>(scaled ? static_cast<Sum>(a.factor_of(r0 + k)) : Sum{1});
        for (int i = 0; i < height; i += width) {
            vec<Sum> x = load_first<Sum>(from + i, left - i);
            if (scaled) x = mul(x, factor);
            store_first(to + i, x, height - i);
        }
    }
}

/// Columns from n on of rows [r0, r0 + depth) as the streams [depth][W] of `panels` panels; of the columns from
/// `columns` on nothing is read and zeros are written.
template <class Sum, class T>
GATEFOLD_NOINLINE void pack_panels_along(const rows_of<T>& b, index_t r0, index_t depth, index_t n, int panels,
                                         index_t columns, Sum* to) {
    constexpr int width = lanes<Sum>;
    const index_t left = columns - n, streams = 2 * panels;
    const index_t whole = b.factor ? 0 : left >= streams * width ? streams : left / width;
    for (index_t k = 0; k < depth; ++k) {
        const T* from = b.row(r0 + k) + n;
        for (index_t j = 0; j < whole; ++j) {
            if (!b.pairs) prefetch<true>(from + 4 * b.stride + j * width);
            store(to + (j * depth + k) * width, load<Sum>(from + j * width));
        }
    }
    for (index_t j = whole; j < streams; ++j)
        pack_along(b, r0, depth, n + j * width, width, columns, to + j * depth * width);
}

template <class Context, class A, class B, class Out>
void product_nt(Context& ctx, std::byte* scratch, const grouping& groups, rows_of<A> a, weights_of<B> w, int n, int k,
                matrix<Out> out, bool accumulate = false) {
    using sum = sum_of<A, B>;
    run_product<sum>(
        ctx, scratch, groups.experts, accumulate,
        [&](int e) {
            return product_extent{groups.count(e), n, k};
        },
        [&](int e, index_t r, int height, index_t k0, index_t depth, sum* to) {
            pack_across(a, groups.begin(e) + r, height, k0, depth, to);
        },
        [&](int e, index_t j, int panels, index_t columns, index_t k0, index_t depth, sum* to) {
            for (int half = 0; half < 2 * panels; ++half, j += lanes<sum>, to += lanes<sum> * depth) {
                const index_t left = columns - j < lanes<sum> ? columns - j : lanes<sum>;
                row_reader<sum, B> readers[lanes<sum>];
                for (index_t i = 0; i < left; ++i)
                    readers[i] = {w.data + e * w.step + (j + i) * w.stride + k0, depth, nullptr};
                interleave(to, lanes<sum>, readers, static_cast<int>(left > 0 ? left : 0), depth);
            }
        },
        [&](int e) {
            return matrix<Out>{out.data + groups.begin(e) * out.stride, out.stride};
        });
}

template <class Context, class A, class B, class Out>
void product_nn(Context& ctx, std::byte* scratch, const grouping& groups, rows_of<A> a, weights_of<B> w, int n, int k,
                matrix<Out> out, bool accumulate = false) {
    using sum = sum_of<A, B>;
    run_product<sum>(
        ctx, scratch, groups.experts, accumulate,
        [&](int e) {
            return product_extent{groups.count(e), n, k};
        },
        [&](int e, index_t r, int height, index_t k0, index_t depth, sum* to) {
            pack_across(a, groups.begin(e) + r, height, k0, depth, to);
        },
        [&](int e, index_t j, int panels, index_t columns, index_t k0, index_t depth, sum* to) {
            pack_panels_along(rows_of<B>{w.data + e * w.step, w.stride}, k0, depth, j, panels, columns, to);
        },
        [&](int e) {
            return matrix<Out>{out.data + groups.begin(e) * out.stride, out.stride};
        });
}

template <class Context, class A, class B, class Out>
void product_tn(Context& ctx, std::byte* scratch, const grouping& groups, rows_of<A> a, rows_of<B> b, int m, int n,
                matrix<Out> out, bool accumulate = false) {
    using sum = sum_of<A, B>;
    run_product<sum>(
        ctx, scratch, groups.experts, accumulate,
        [&](int e) {
            return product_extent{accumulate && groups.count(e) == 0 ? 0 : m, n, groups.count(e)};
        },
        [&](int e, index_t r, int height, index_t k0, index_t depth, sum* to) {
            pack_along(a, groups.begin(e) + k0, depth, r, height, m, to);
        },
        [&](int e, index_t j, int panels, index_t columns, index_t k0, index_t depth, sum* to) {
            pack_panels_along(b, groups.begin(e) + k0, depth, j, panels, columns, to);
        },
        [&](int e) {
            return matrix<Out>{out.data + e * out.step, out.stride};
        });
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
