// Causal attention with grouped keys and values, forward and backward.
//
//     q, k, v ── per sequence and head, 64 queries at a time ──> scores ── softmax ──> out, log_sums
//     q, k, v, out gradient, log_sums ── the scores again ──> gradients of q, k, v
//
// Never more than 64 rows of scores exist per thread. Each score is one chain of fma in ascending head dimension, each
// output one chain in ascending key: a token's result depends neither on later tokens, nor on threads, nor on whether
// earlier keys come from a cache.
#pragma once

#include <algorithm>
#include <cmath>

#include <gatefold/core/workspace.hpp>
#include <gatefold/cpu/gemm/products.hpp>
#include <gatefold/cpu/simd/number.hpp>
#include <gatefold/ops/arguments.hpp>
#include <gatefold/ops/rows.hpp>

namespace gatefold::inline v0 {

/// Heads of an attention: query head j reads key/value head j / (heads / key_value_heads).
struct attention_config {
    int heads = 0, key_value_heads = 0, head_size = 0;
    constexpr int query_width() const { return heads * head_size; }
    constexpr int key_width() const { return key_value_heads * head_size; }
    bool operator==(const attention_config&) const = default;
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// A context of one thread inside a part of a parallel loop: products run where they are called.
struct inside_thread {
    static constexpr int threads() { return 1; }
    template <class Body>
    GATEFOLD_INLINE void parallel(int parts, Body&& body) const {
        for (int p = 0; p < parts; ++p) body(p);
    }
};

inline constexpr index_t query_block = 64;

/// What attention computes on: `queries` of the `keys` positions of each sequence, the last ones.
template <class T>
struct attention_call {
    index_t sequences, queries, keys;
    accumulate_t<T> scale;
    const T *q, *k, *v;
    index_t q_stride, k_stride, v_stride;

    GATEFOLD_INLINE index_t first() const { return keys - queries; }
};

/// Memory of one thread.
template <class A>
struct attention_memory {
    A *scores, *d_scores, *d_keys, *d_values;
    std::byte* products;

    GATEFOLD_INLINE attention_memory(carver& memory, index_t keys, int head_size, bool backward)
        : scores(memory.take<A>(query_block * keys)),
          d_scores(memory.take<A>(backward ? query_block * keys : 0)),
          d_keys(memory.take<A>(backward ? keys * head_size : 0)),
          d_values(memory.take<A>(backward ? keys * head_size : 0)),
          products(memory.take<std::byte>(static_cast<index_t>(product_scratch_bytes(1)))) {}
};

/// Scores of one query become weights over its first n keys and zeros up to `padded`. Returns log Σ exp of the scaled
/// scores.
template <class A>
A softmax_row(A* s, index_t n, index_t padded, A scale) {
    const A most = gatefold::mul(max_of_row<A>(n, s), scale);
    const vec<A> factor = broadcast(scale), shift = broadcast(-most);
    const A* const from = s;
    map<A>(
        n, [=](vec<A> v) { return gatefold::exp(fma(v, factor, shift)); }, s, from);
    const A sum = sum_of_row<A>(
        n, [](vec<A> total, vec<A> v) { return add(total, v); }, from);
    const vec<A> inverse = broadcast(A{1} / sum);
    map<A>(
        n, [=](vec<A> v) { return mul(v, inverse); }, s, from);
    std::fill(s + n, s + padded, A{0});
    return most + gatefold::log(sum);
}

/// The weights again, from their scores and log Σ exp.
template <class A>
void weights_again(A* s, index_t n, index_t padded, A scale, A log_sum) {
    const vec<A> factor = broadcast(scale), shift = broadcast(-log_sum);
    const A* const from = s;
    map<A>(
        n, [=](vec<A> v) { return gatefold::exp(fma(v, factor, shift)); }, s, from);
    std::fill(s + n, s + padded, A{0});
}

/// Gradients of the weights become gradients of the unscaled scores: p (dp - <p, dp>) scale.
template <class A>
void softmax_row_backward(const A* p, A* d, index_t n, index_t padded, A scale) {
    const A* const from = d;
    const A along = sum_of_row<A>(
        n, [](vec<A> sum, vec<A> u, vec<A> v) { return fma(u, v, sum); }, p, from);
    const vec<A> shift = broadcast(along), factor = broadcast(scale);
    map<A>(
        n, [=](vec<A> u, vec<A> v) { return mul(mul(u, vec<A>{v.raw - shift.raw}), factor); }, d, p, from);
    std::fill(d + n, d + padded, A{0});
}

template <attention_config C, class T, class A = accumulate_t<T>>
void attention_forward(context<cpu>& ctx, const attention_call<T>& call, T* out, index_t out_stride, A* log_sums) {
    constexpr int d = C.head_size, shared_by = C.heads / C.key_value_heads;
    const index_t blocks = ceil_div(call.queries, query_block), tasks = call.sequences * C.heads * blocks;
    const int parts = static_cast<int>((std::min)(tasks, index_t{ctx.threads()}));
    carver count(nullptr);
    attention_memory<A>(count, call.keys, d, false);
    std::byte* memory = ctx.workspace(static_cast<std::size_t>(parts) * count.used());
    ctx.parallel(parts, [&](int part) {
        carver mine(memory + static_cast<std::size_t>(part) * count.used());
        const attention_memory<A> at(mine, call.keys, d, false);
        inside_thread here;
        // Later blocks of a sequence cost more: tasks are dealt out one by one.
        for (index_t task = part; task < tasks; task += parts) {
            const index_t block = task % blocks, h = task / blocks % C.heads, s = task / blocks / C.heads;
            const index_t begin = block * query_block, rows = (std::min)(query_block, call.queries - begin);
            const index_t seen = call.first() + begin + rows, row = s * call.queries + begin;
            const T* q = call.q + row * call.q_stride + h * d;
            const T* k = call.k + s * call.keys * call.k_stride + h / shared_by * d;
            const T* v = call.v + s * call.keys * call.v_stride + h / shared_by * d;
            const grouping all{.rows = rows};
            product_nt(here, at.products, all, rows_of<T>{q, call.q_stride}, weights_of<T>{k, call.k_stride},
                       static_cast<int>(seen), d, matrix<A>{at.scores, seen});
            for (index_t r = 0; r < rows; ++r) {
                const A log_sum = softmax_row(at.scores + r * seen, seen - rows + r + 1, seen, call.scale);
                if (log_sums) log_sums[(row + r) * C.heads + h] = log_sum;
            }
            product_nn(here, at.products, all, rows_of<A>{at.scores, seen}, weights_of<T>{v, call.v_stride}, d,
                       static_cast<int>(seen), matrix<T>{out + row * out_stride + h * d, out_stride});
        }
    });
}

template <attention_config C, class T, class A = accumulate_t<T>>
void attention_backward(context<cpu>& ctx, const attention_call<T>& call, const A* log_sums, const T* d_out,
                        index_t d_out_stride, T* d_q, index_t d_q_stride, T* d_k, index_t d_k_stride, T* d_v,
                        index_t d_v_stride) {
    constexpr int d = C.head_size, shared_by = C.heads / C.key_value_heads;
    const index_t tasks = call.sequences * C.key_value_heads;
    const int parts = static_cast<int>((std::min)(tasks, index_t{ctx.threads()}));
    carver count(nullptr);
    attention_memory<A>(count, call.keys, d, true);
    std::byte* memory = ctx.workspace(static_cast<std::size_t>(parts) * count.used());
    ctx.parallel(parts, [&](int part) {
        carver mine(memory + static_cast<std::size_t>(part) * count.used());
        const attention_memory<A> at(mine, call.keys, d, true);
        inside_thread here;
        for (index_t task = part; task < tasks; task += parts) {
            const index_t g = task % C.key_value_heads, s = task / C.key_value_heads;
            const T* k = call.k + s * call.keys * call.k_stride + g * d;
            const T* v = call.v + s * call.keys * call.v_stride + g * d;
            std::fill_n(at.d_keys, call.keys * d, A{0});
            std::fill_n(at.d_values, call.keys * d, A{0});
            for (index_t h = g * shared_by; h < (g + 1) * shared_by; ++h)
                for (index_t begin = 0; begin < call.queries; begin += query_block) {
                    const index_t rows = (std::min)(query_block, call.queries - begin);
                    const index_t seen = call.first() + begin + rows, row = s * call.queries + begin;
                    const rows_of<T> q{call.q + row * call.q_stride + h * d, call.q_stride};
                    const rows_of<T> dy{d_out + row * d_out_stride + h * d, d_out_stride};
                    const grouping all{.rows = rows};
                    const int n = static_cast<int>(seen);
                    product_nt(here, at.products, all, q, weights_of<T>{k, call.k_stride}, n, d,
                               matrix<A>{at.scores, seen});
                    product_nt(here, at.products, all, dy, weights_of<T>{v, call.v_stride}, n, d,
                               matrix<A>{at.d_scores, seen});
                    for (index_t r = 0; r < rows; ++r) {
                        const index_t keys = seen - rows + r + 1;
                        weights_again(at.scores + r * seen, keys, seen, call.scale, log_sums[(row + r) * C.heads + h]);
                        softmax_row_backward(at.scores + r * seen, at.d_scores + r * seen, keys, seen, call.scale);
                    }
                    product_tn(here, at.products, all, rows_of<A>{at.scores, seen}, dy, n, d, matrix<A>{at.d_values, d},
                               true);
                    product_tn(here, at.products, all, rows_of<A>{at.d_scores, seen}, q, n, d, matrix<A>{at.d_keys, d},
                               true);
                    product_nn(here, at.products, all, rows_of<A>{at.d_scores, seen}, weights_of<T>{k, call.k_stride},
                               d, n, matrix<T>{d_q + row * d_q_stride + h * d, d_q_stride});
                }
            for (index_t j = 0; j < call.keys; ++j)
                for (int i = 0; i < d; i += lanes<A>) {
                    const index_t to = s * call.keys + j, from = j * d + i;
                    store_first(d_k + to * d_k_stride + g * d + i, load_first<A>(at.d_keys + from, d - i), d - i);
                    store_first(d_v + to * d_v_stride + g * d + i, load_first<A>(at.d_values + from, d - i), d - i);
                }
        }
    });
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <attention_config C>
constexpr void check_attention_config() {
    static_assert(C.heads >= 1 && C.head_size >= 1, "gatefold::attention: heads and head_size must be at least 1");
    static_assert(C.key_value_heads >= 1 && C.heads % C.key_value_heads == 0,
                  "gatefold::attention: heads must be a multiple of key_value_heads");
}

template <attention_config C, class T>
on_cpu::attention_call<T> checked_attention(const char* function, view<const T, dyn, C.query_width()> q,
                                            view<const T, dyn, C.key_width()> k, view<const T, dyn, C.key_width()> v,
                                            index_t sequences, double scale) {
    check_attention_config<C>();
    require(sequences >= 0 && (sequences > 0 ? q.extent(0) % sequences == 0 : q.extent(0) == 0), function, "sequences",
            "a divisor of the number of queries", sequences);
    require(sequences > 0 ? k.extent(0) % sequences == 0 : k.extent(0) == 0, function, "k", "rows for whole sequences",
            k.extent(0));
    require(v.extent(0) == k.extent(0), function, "v", k.extent(0), v.extent(0));
    require(k.extent(0) >= q.extent(0), function, "k", "at least as many rows as q", k.extent(0));
    require(k.extent(0) <= 0x7fffffff, function, "k", "fewer than 2^31 rows", k.extent(0));
    const double used = scale > 0 ? scale : 1 / std::sqrt(static_cast<double>(C.head_size));
    return {sequences,
            sequences > 0 ? q.extent(0) / sequences : 0,
            sequences > 0 ? k.extent(0) / sequences : 0,
            static_cast<accumulate_t<T>>(used),
            q.data(),
            k.data(),
            v.data(),
            q.row_stride(),
            k.row_stride(),
            v.row_stride()};
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Attention of every query over the keys of its sequence up to its own position.
///
/// Shapes: q, out [sequences · n, heads · head_size]; k, v [sequences · m, key_value_heads · head_size] with m >= n,
/// the
///         queries being the last n positions; log_sums [sequences · n, heads], or empty where no backward follows.
///         `scale` 0 stands for head_size^-1/2.
/// Throws: argument_error, outputs untouched, where extents do not fit.
template <attention_config C, class T>
void attention(context<cpu>& ctx, view<const T, dyn, C.query_width()> q, view<const T, dyn, C.key_width()> k,
               view<const T, dyn, C.key_width()> v, view<T, dyn, C.query_width()> out,
               view<accumulate_t<T>, dyn, C.heads> log_sums, index_t sequences, double scale = 0) {
    const auto call = detail::checked_attention<C, T>("attention", q, k, v, sequences, scale);
    require(out.extent(0) == q.extent(0), "attention", "out", q.extent(0), out.extent(0));
    require(!log_sums.data() || (log_sums.extent(0) == q.extent(0) && log_sums.is_contiguous()), "attention",
            "log_sums", "a contiguous row for every query", log_sums.extent(0));
    if (q.extent(0) == 0) return;
    detail::on_cpu::attention_forward<C, T>(ctx, call, out.data(), out.row_stride(), log_sums.data());
}

/// Gradients of attention with respect to q, k and v, which are overwritten.
///
/// Shapes: as attention; d_out as out, d_q as q, d_k and d_v as k. log_sums as attention wrote them.
/// Throws: argument_error, outputs untouched, where extents do not fit.
template <attention_config C, class T>
void attention_backward(context<cpu>& ctx, view<const T, dyn, C.query_width()> q, view<const T, dyn, C.key_width()> k,
                        view<const T, dyn, C.key_width()> v, view<const accumulate_t<T>, dyn, C.heads> log_sums,
                        view<const T, dyn, C.query_width()> d_out, view<T, dyn, C.query_width()> d_q,
                        view<T, dyn, C.key_width()> d_k, view<T, dyn, C.key_width()> d_v, index_t sequences,
                        double scale = 0) {
    const char* function = "attention_backward";
    const auto call = detail::checked_attention<C, T>(function, q, k, v, sequences, scale);
    require(log_sums.extent(0) == q.extent(0) && log_sums.is_contiguous(), function, "log_sums",
            "a contiguous row for every query", log_sums.extent(0));
    require(d_out.extent(0) == q.extent(0), function, "d_out", q.extent(0), d_out.extent(0));
    require(d_q.extent(0) == q.extent(0), function, "d_q", q.extent(0), d_q.extent(0));
    require(d_k.extent(0) == k.extent(0), function, "d_k", k.extent(0), d_k.extent(0));
    require(d_v.extent(0) == k.extent(0), function, "d_v", k.extent(0), d_v.extent(0));
    if (q.extent(0) == 0) return;
    detail::on_cpu::attention_backward<C, T>(ctx, call, log_sums.data(), d_out.data(), d_out.row_stride(), d_q.data(),
                                             d_q.row_stride(), d_k.data(), d_k.row_stride(), d_v.data(),
                                             d_v.row_stride());
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
