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

#include <gatefold/cpu/gemm/pack.hpp>
#include <gatefold/cpu/gemm/products_run.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// The matrices of all experts: row i of expert e at data + e · step + i · stride.
template <class T>
struct weights_of {
    const T* data;
    index_t stride, step = 0;
};

template <class A, class B>
using sum_of = std::conditional_t<std::is_same_v<A, double> || std::is_same_v<B, double>, double, float>;

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

/// Brings the columns from m on of rows [r0, r0 + depth) of `a` into the order [depth][height] of the tiles, one behind
/// the other; of the columns from `columns` on nothing is read and zeros are written.
template <class Sum, class T>
GATEFOLD_INLINE void pack_along(const rows_of<T>& a, index_t r0, index_t depth, index_t m, const block_tiles& tiles,
                                index_t columns, Sum* to) {
    constexpr int width = lanes<Sum>;
    const bool scaled = a.factor != nullptr;
    for (index_t k = 0; k < depth; ++k) {
        const T* row = a.row(r0 + k);  // a division: once for all tiles
        const vec<Sum> factor = broadcast<Sum>(scaled ? static_cast<Sum>(a.factor_of(r0 + k)) : Sum{1});
        for (index_t t = 0; t < tiles.count(); ++t) {
            const index_t first = tiles.begin(t);
            const int height = tiles.height(t);
            for (int i = 0; i < height; i += width) {
                const index_t at = m + first + i;
                vec<Sum> x = load_first<Sum>(row + at, columns - at);
                if (scaled) x = mul(x, factor);
                store_first(to + first * depth + k * height + i, x, height - i);
            }
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
        pack_along(b, r0, depth, n + j * width, block_tiles{row_tiles(width, width), width, true}, columns,
                   to + j * depth * width);
}

/// product_call's functions for each kind of operand.
template <class Sum, class T>
void pack_rows_across(const void* operand, index_t begin, index_t r, const block_tiles& tiles, index_t, index_t k0,
                      index_t depth, Sum* to) {
    const auto& a = *static_cast<const rows_of<T>*>(operand);
    for (index_t t = 0; t < tiles.count(); ++t)
        pack_across(a, begin + r + tiles.begin(t), tiles.height(t), k0, depth, to + tiles.begin(t) * depth);
}
template <class Sum, class T>
void pack_rows_along(const void* operand, index_t begin, index_t r, const block_tiles& tiles, index_t rows, index_t k0,
                     index_t depth, Sum* to) {
    pack_along(*static_cast<const rows_of<T>*>(operand), begin + k0, depth, r, tiles, rows, to);
}
template <class Sum, class T>
void pack_weights_across(const void* operand, int e, index_t, index_t n, int panels, index_t columns, index_t k0,
                         index_t depth, Sum* to) {
    const auto& w = *static_cast<const weights_of<T>*>(operand);
    for (int half = 0; half < 2 * panels; ++half, n += lanes<Sum>, to += lanes<Sum> * depth) {
        const index_t left = columns - n < lanes<Sum> ? columns - n : lanes<Sum>;
        row_reader<Sum, T> readers[lanes<Sum>];
        for (index_t i = 0; i < left; ++i) readers[i] = {w.data + e * w.step + (n + i) * w.stride + k0, depth, nullptr};
        interleave(to, lanes<Sum>, readers, static_cast<int>(left > 0 ? left : 0), depth);
    }
}
template <class Sum, class T>
void pack_weights_along(const void* operand, int e, index_t, index_t n, int panels, index_t columns, index_t k0,
                        index_t depth, Sum* to) {
    const auto& w = *static_cast<const weights_of<T>*>(operand);
    pack_panels_along(rows_of<T>{w.data + e * w.step, w.stride}, k0, depth, n, panels, columns, to);
}
template <class Sum, class T>
void pack_panels_of_rows(const void* operand, int, index_t begin, index_t n, int panels, index_t columns, index_t k0,
                         index_t depth, Sum* to) {
    pack_panels_along(*static_cast<const rows_of<T>*>(operand), begin + k0, depth, n, panels, columns, to);
}

template <class Context, class A, class B, class Out>
void product_nt(Context& ctx, std::byte* scratch, const grouping& groups, rows_of<A> a, weights_of<B> w, int n, int k,
                matrix<Out> out, bool accumulate = false) {
    using sum = sum_of<A, B>;
    run_product(ctx, scratch,
                product_call<sum, Out>{groups, false, 0, n, k, out, accumulate, &pack_rows_across<sum, A>, &a,
                                       &pack_weights_across<sum, B>, &w});
}

/// product_nt for one group of rows in order, where n may be small: rows of `a` and of `w` change places if that leaves
/// fewer lanes idle. The same bits, since a product of two numbers does not know their order.
///
/// An object, so that its parts can run beside others in a region of threads; it refers to itself.
template <class A, class B, class Out>
class narrow_product {
public:
    using sum = sum_of<A, B>;

    /// `scratch` as for product_nt.
    narrow_product(int threads, std::byte* scratch, index_t rows, const rows_of<A>& a, const weights_of<B>& w, int n,
                   int k, const matrix<Out>& out)
        : scratch_(scratch),
          turned_(n * round_up(rows, panel) < rows * round_up<index_t>(n, panel)),
          groups_{1, nullptr, turned_ ? n : rows},
          a_(a),
          w_(w),
          turned_a_{a.data, a.stride},
          turned_w_{w.data, w.stride},
          call_(turned_ ? call{groups_, false, 0, rows, k, out, false, &pack_rows_across<sum, B>, &turned_w_,
                               &pack_weights_across<sum, A>, &turned_a_, nullptr, 0, 0, 0, 0, nullptr, true}
                        : call{groups_, false, 0, n, k, out, false, &pack_rows_across<sum, A>, &a_,
                               &pack_weights_across<sum, B>, &w_}),
          tasks_(call_, threads) {}
    narrow_product(const narrow_product&) = delete;

    const product_tasks<sum, Out>& tasks() const { return tasks_; }
    int parts() const { return tasks_.parts(); }
    void operator()(int part) const {
        tasks_.run(part, scratch_ + static_cast<std::size_t>(part) * product_blocks::bytes);
    }

private:
    using call = product_call<sum, Out>;
    static constexpr index_t panel = 2 * lanes<sum>;

    std::byte* scratch_;
    bool turned_;
    grouping groups_;
    rows_of<A> a_;
    weights_of<B> w_;
    weights_of<A> turned_a_;
    rows_of<B> turned_w_;
    call call_;
    product_tasks<sum, Out> tasks_;
};

template <class Context, class A, class B, class Out>
void product_nt_narrow(Context& ctx, std::byte* scratch, index_t rows, const rows_of<A>& a, const weights_of<B>& w,
                       int n, int k, const matrix<Out>& out) {
    const narrow_product<A, B, Out> product(ctx.threads(), scratch, rows, a, w, n, k, out);
    run_tasks(ctx, scratch, product.tasks());
}

template <class Context, class A, class B, class Out>
void product_nn(Context& ctx, std::byte* scratch, const grouping& groups, rows_of<A> a, weights_of<B> w, int n, int k,
                matrix<Out> out, bool accumulate = false) {
    using sum = sum_of<A, B>;
    constexpr index_t size = sizeof(B);
    run_product(ctx, scratch,
                product_call<sum, Out>{groups, false, 0, n, k, out, accumulate, &pack_rows_across<sum, A>, &a,
                                       &pack_weights_along<sum, B>, &w, reinterpret_cast<const char*>(w.data),
                                       w.step * size, w.stride * size, size,
                                       most_unpacked_rows<sum, B>(w.stride * size), &multiply_unpacked<sum, B>});
}

template <class Context, class A, class B, class Out>
void product_tn(Context& ctx, std::byte* scratch, const grouping& groups, rows_of<A> a, rows_of<B> b, int m, int n,
                matrix<Out> out, bool accumulate = false) {
    using sum = sum_of<A, B>;
    run_product(ctx, scratch,
                product_call<sum, Out>{groups, true, m, n, 0, out, accumulate, &pack_rows_along<sum, A>, &a,
                                       &pack_panels_of_rows<sum, B>, &b});
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
