// How one grouped product is cut into blocks and carried out: what the three products of cpu/gemm/products.hpp share.
//
//     a ── pack_rows ────> [k][R] ──┐
//     b ── pack_panels ──> [k][W] ──┴──> tiles of R rows and 2 W columns ──> out
//
// Operands are reached through pointers to functions that copy a block each, so that the loops are compiled once per
// type of sums and results, not once per pair of operand types.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <gatefold/cpu/gemm/gemm.hpp>
#include <gatefold/cpu/gemm/products_unpacked.hpp>
#include <gatefold/cpu/simd/around.hpp>

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

/// Where results go: row i (of expert e, for product_tn) at data + e · step + i · stride.
template <class T>
struct matrix {
    T* data;
    index_t stride, step = 0;
};

/// How a product is cut: what a thread works on stays in its second-level cache.
struct product_blocks {
    static constexpr int rows = 112, columns = 512, depth = 512, panel = 32;
    /// Blocks of columns that are one where rows are few: weights are read in long pieces of their rows.
    static constexpr int joined = 4;
    /// Panels packed together, so that what is read of a row of weights is a few lines long.
    static constexpr int together = 4;
    static constexpr std::size_t bytes = sizeof(double) * (std::size_t{rows} * depth + std::size_t{rows} * columns +
                                                           std::size_t{panel} * together * depth + 64);
};

/// Scratch of the products, for any extents and types.
constexpr std::size_t product_scratch_bytes(int threads) {
    return static_cast<std::size_t>(threads) * product_blocks::bytes;
}

/// Shares [0, total) of a cost among `parts`; the share of a part begins here.
GATEFOLD_INLINE index_t share(index_t total, int part, int parts) {
    return total / parts * part + total % parts * part / parts;
}

/// What a group of a product amounts to.
struct product_extent {
    index_t rows, columns, depth;
};

/// How the rows of a block are cut into tiles. Outputs over few rows are mostly written: there a tile is better whole
/// than as high as the others.
struct block_tiles {
    row_tiles even;
    int tallest;
    bool whole;

    GATEFOLD_INLINE index_t count() const { return even.tiles; }
    GATEFOLD_INLINE index_t begin(index_t t) const {
        return !whole ? even.begin(t) : t < even.tiles ? t * tallest : even.rows;
    }
    GATEFOLD_INLINE int height(index_t t) const { return static_cast<int>(begin(t + 1) - begin(t)); }
};

/// One product of a call.
template <class Sum, class Out>
struct product_call {
    const grouping& groups;
    bool over_rows;  ///< sums run over the rows of a group, `rows` is the height of its output; else over `depth`
    index_t rows, columns, depth;
    matrix<Out> out;
    bool accumulate;

    /// The rows from r on of group e's left operand, k in [k0, k0 + depth): one tile behind the other as
    /// [depth][height].
    void (*pack_rows)(const void* operand, index_t begin, index_t r, const block_tiles& tiles, index_t rows, index_t k0,
                      index_t depth, Sum* to);
    const void* left;
    /// Columns from n on of group e's right operand, k in [k0, k0 + depth), as the streams [depth][W] of panels; zeros
    /// from `columns` on.
    void (*pack_panels)(const void* operand, int e, index_t begin, index_t n, int panels, index_t columns, index_t k0,
                        index_t depth, Sum* to);
    const void* right;
    /// Where the right operand is stored with columns side by side and comes from memory: bytes from one expert, k and
    /// column to the next. Null elsewhere.
    const char* weights = nullptr;
    index_t expert_bytes = 0, row_bytes = 0, column_bytes = 0;
    /// Multiplies groups of at most so many rows by them as they lie: multiply_unpacked() for their type.
    index_t unpacked_rows = 0;
    void (*unpacked)(const void* weights, index_t stride, const row_tiles& tiles, index_t steps, const Sum* a, Sum* c,
                     index_t row, index_t columns, bool fresh) = nullptr;
    /// Output (row, column) stands where (column, row) would: for one group whose operands have changed places, and
    /// without `accumulate`.
    bool turned = false;

    product_extent extent(int e) const {
        const index_t count = groups.count(e);
        if (!over_rows) return {count, columns, depth};
        return {accumulate && count == 0 ? 0 : rows, columns, count};
    }
    /// Whether a group's weights are multiplied as they lie.
    bool is_unpacked(const product_extent& x) const { return x.rows <= unpacked_rows; }
    Out* target(int e) const { return out.data + (over_rows ? e * out.step : groups.begin(e) * out.stride); }
    /// Whether results are only written, and more than caches keep: matrices of the size of weights.
    bool is_large() const {
        return over_rows && !accumulate &&
               groups.experts * rows * columns > static_cast<index_t>(kept_in_caches / sizeof(Out));
    }
};

/// A rectangle of one group's output.
struct product_block {
    int e;
    index_t r0, rows, c0, columns;
};

/// Writes zeros to a block without a sum.
template <class Sum, class Out>
GATEFOLD_NOINLINE void clear_block(Out* to, index_t stride, const product_block& b, bool around) {
    for (index_t r = 0; r < b.rows; ++r, to += stride)
        for (index_t j = 0; j < b.columns; j += lanes<Sum>)
            if (around && j + lanes<Sum> <= b.columns)
                store_around(to + j, zeros<Sum>());
            else
                store_first(to + j, zeros<Sum>(), b.columns - j);
}

/// The outputs of one block; `memory` holds product_blocks::bytes.
template <class Sum, class Out>
GATEFOLD_NOINLINE void run_block(const product_call<Sum, Out>& p, const product_block& block, bool large,
                                 std::byte* memory) {
    using form = chain<Sum>;
    using blocks = product_blocks;
    constexpr int width = lanes<Sum>, panel = 2 * width, tallest = form::max_rows;
    static_assert(panel <= blocks::panel);
    constexpr bool in_place = std::is_same_v<Out, Sum>;
    const int e = block.e;
    const index_t begin = p.groups.begin(e), columns = block.columns, stride = p.out.stride;
    const product_extent x = p.extent(e);
    const index_t row_step = p.turned ? 1 : stride, column_step = p.turned ? stride : 1;
    Out* const out = p.target(e) + block.r0 * row_step + block.c0 * column_step;
    const bool around = in_place && large && x.depth <= blocks::depth && is_aligned(out) && stride % width == 0;
    if (x.depth == 0) {
        const product_block turned{e, block.c0, columns, block.r0, block.rows};
        if (!p.accumulate) clear_block<Sum>(out, stride, p.turned ? turned : block, around);
        return;
    }

    Sum* a = reinterpret_cast<Sum*>(memory);
    Sum* c = a + index_t{blocks::rows} * blocks::depth;
    Sum* b = c + index_t{blocks::rows} * blocks::columns;
    // Sums of whole panels are kept in the output itself where it has their type.
    const index_t padded = round_up<index_t>(columns, panel);
    const index_t whole = in_place && !p.turned ? columns / panel * panel : 0;
    if (p.accumulate)
        for (index_t r = 0; r < block.rows; ++r)
            for (index_t j = whole; j < padded; j += width)
                store(c + r * padded + j, load_first<Sum>(out + r * stride + j, columns - j));
    const block_tiles tiles{row_tiles(block.rows, tallest), tallest, p.over_rows};
    // Of weights as they lie whole panels are read; what is left of the columns is packed with zeros behind it.
    const index_t lying = p.is_unpacked(x) ? columns / panel * panel : 0;
    const lookahead nothing{0, reinterpret_cast<const char*>(memory), 0, 0};

    for (index_t k0 = 0; k0 < x.depth; k0 += blocks::depth) {
        const index_t depth = x.depth - k0 < blocks::depth ? x.depth - k0 : blocks::depth;
        const bool fresh = k0 == 0 && !p.accumulate;
        p.pack_rows(p.left, begin, block.r0, tiles, x.rows, k0, depth, a);
        if (lying > 0) {
            const char* from = p.weights + e * p.expert_bytes + k0 * p.row_bytes + block.c0 * p.column_bytes;
            const index_t weight_stride = p.row_bytes / p.column_bytes;
            if constexpr (in_place)
                p.unpacked(from, weight_stride, tiles.even, depth, a, out, stride, lying, fresh);
            else
                p.unpacked(from, weight_stride, tiles.even, depth, a, c, padded, lying, fresh);
        }
        for (index_t j = lying; j < padded; j += panel) {
            const index_t q = (j - lying) / panel % blocks::together;
            if (q == 0) {
                const index_t left = (padded - j) / panel;
                p.pack_panels(p.right, e, begin, block.c0 + j,
                              left < blocks::together ? static_cast<int>(left) : blocks::together, x.columns, k0, depth,
                              b);
            }
            // The panels that are packed next are fetched while the first tile is multiplied.
            lookahead ahead = nothing;
            if (p.weights) {
                const bool wraps = j + blocks::together * panel >= padded;
                const index_t n = j + blocks::together * panel - (wraps ? padded : 0), k = k0 + (wraps ? depth : 0);
                if (k < x.depth)
                    ahead = {0, p.weights + e * p.expert_bytes + k * p.row_bytes + (block.c0 + n) * p.column_bytes,
                             width * p.column_bytes, p.row_bytes};
            }
            for (index_t t = 0; t < tiles.count(); ++t, ahead = nothing) {
                const index_t r = tiles.begin(t);
                const int height = tiles.height(t);
                const Sum *rows = a + r * depth, *streams = b + q * panel * depth;
                if constexpr (in_place) {
                    if (j < whole) {
                        Sum* tile = out + r * stride + j;
                        if (p.over_rows && !around) {
                            // What is written next is fetched before (bench backward_dw): one of its rows with every
                            // step, or all at once where the steps are fewer than its rows or lead out of the block.
                            const bool steps = depth >= height && depth <= block.rows;
                            const index_t lowest = steps ? block.rows - depth : block.rows, below = r + height;
                            const Sum* next = t + 1 == tiles.count()
                                                  ? out + j + panel
                                                  : out + (below < lowest ? below : lowest) * stride + j;
                            if (steps)
                                ahead = {0, reinterpret_cast<const char*>(next), vector_bytes,
                                         stride * static_cast<index_t>(sizeof(Sum))};
                            else
                                for (int i = 0; i < height; ++i, next += stride) {
                                    prefetch<false>(next);
                                    prefetch<false>(next + width);
                                }
                        }
                        if (around && height == tallest)
                            multiply<form, tallest, 2, true>(depth, rows, streams, width * depth, tile, stride, true,
                                                             ahead);
                        else
                            kernel_for<form, 2>(height)(depth, rows, streams, width * depth, tile, stride, fresh,
                                                        ahead);
                        continue;
                    }
                }
                kernel_for<form, 2>(height)(depth, rows, streams, width * depth, c + r * padded + j, padded, fresh,
                                            ahead);
            }
        }
    }
    if (p.turned) {
        for (index_t j = 0; j < columns; ++j)
            for (index_t r = 0; r < block.rows; ++r) out[j * stride + r] = from_accumulate<Out>(c[r * padded + j]);
        return;
    }
    for (index_t r = 0; r < block.rows; ++r)
        for (index_t j = whole; j < columns; j += width)
            store_first(out + r * stride + j, load<Sum>(c + r * padded + j), columns - j);
}

/// How threads share a product: by blocks of its outputs, and by what these cost.
template <class Sum, class Out>
class product_tasks {
    using blocks = product_blocks;

public:
    product_tasks(const product_call<Sum, Out>& call, int threads) : p_(call), large_(call.is_large()) {
        // A part has to be worth waking a thread for, which takes as long as this many multiply-adds.
        constexpr index_t least = 65536;
        const int groups = p_.groups.experts;
        index_t work = 0;
        for (int e = 0; e < groups; ++e) {
            const product_extent x = p_.extent(e);
            work += x.rows * x.columns * (x.depth + 8);
        }
        parts_ = work / least < threads ? static_cast<int>(1 + work / least) : threads;
        // Column blocks shrink until every thread has a few tasks, and to single panels only where some thread had
        // none; that changes who computes an output, not its bits. No thread is woken for nothing.
        while (parts_ > 1 && tasks() < 4 * parts_ && block_columns_ > (tasks() < parts_ ? 1 : 2) * blocks::panel)
            block_columns_ /= 2;
        if (const index_t there = tasks(); there < parts_) parts_ = there > 1 ? static_cast<int>(there) : 1;
        for (int e = 0; e < groups; ++e) total_ += grid(p_.extent(e)).tasks() * cost(p_.extent(e));
    }

    int parts() const { return parts_; }

    /// The tasks of one part; `memory` holds product_blocks::bytes of its own.
    void run(int part, std::byte* memory) const {
        const index_t low = share(total_, part, parts_), high = share(total_, part + 1, parts_);
        index_t before = 0;
        for (int e = 0; e < p_.groups.experts; ++e) {
            const product_extent x = p_.extent(e);
            const block_grid g = grid(x);
            const index_t each = cost(x), first = before;
            before += each * g.tasks();
            if (g.tasks() == 0 || before <= low || first >= high) continue;
            for (index_t task = 0; task < g.tasks(); ++task) {
                const index_t begins = first + task * each;
                if (begins < low || begins >= high) continue;
                const index_t m = task / g.column_blocks, c0 = task % g.column_blocks * g.columns;
                const auto row = [&](index_t i) {
                    if (!p_.over_rows) return x.rows * i / g.row_blocks;
                    return i < g.row_blocks ? i * blocks::rows : x.rows;
                };
                const index_t left = x.columns - c0;
                run_block(p_, {e, row(m), row(m + 1) - row(m), c0, left < g.columns ? left : g.columns}, large_,
                          memory);
            }
        }
        if (large_) finish_stores_around();
    }

private:
    struct block_grid {
        index_t columns, row_blocks, column_blocks;
        index_t tasks() const { return row_blocks * column_blocks; }
    };
    block_grid grid(const product_extent& x) const {
        const bool few = p_.is_unpacked(x) && x.rows <= few_rows;
        const index_t columns = few ? block_columns_ * blocks::joined : block_columns_;
        return {columns, ceil_div<index_t>(x.rows, blocks::rows), ceil_div(x.columns, columns)};
    }
    index_t tasks() const {
        index_t n = 0;
        for (int e = 0; e < p_.groups.experts; ++e) n += grid(p_.extent(e)).tasks();
        return n;
    }
    /// A task costs its arithmetic and, per output, about what eight rows would for packing.
    index_t cost(const product_extent& x) const {
        const block_grid g = grid(x);
        return g.tasks() ? (x.rows / g.row_blocks + 8) * (x.columns / g.column_blocks + 1) * (x.depth + 8) : 0;
    }

    const product_call<Sum, Out>& p_;
    bool large_;
    int parts_ = 1;
    index_t block_columns_ = blocks::columns, total_ = 0;
};

template <class Context, class Sum, class Out>
void run_tasks(Context& ctx, std::byte* scratch, const product_tasks<Sum, Out>& tasks) {
    ctx.parallel(tasks.parts(),
                 [&](int part) { tasks.run(part, scratch + static_cast<std::size_t>(part) * product_blocks::bytes); });
}

/// Runs a product.
template <class Context, class Sum, class Out>
void run_product(Context& ctx, std::byte* scratch, const product_call<Sum, Out>& p) {
    run_tasks(ctx, scratch, product_tasks<Sum, Out>(p, ctx.threads()));
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
