// Expert choice on the CPU: each expert takes its best tokens.
//
//     scores[T,N] ── per expert: the C-th largest, by halving the range of keys ──> taken[T,N] ──> ids in ascending
//     expert
//
// Experts lie across the lanes, so that a pass over the tokens reads rows as they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <gatefold/cpu/router/capacity.hpp>
#include <gatefold/cpu/router/columns.hpp>
#include <gatefold/cpu/router/row.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// The numbers whose order_key is `order`, from that of -inf to that of +inf.
template <class A>
GATEFOLD_INLINE vec<A> keys_of(typename number<vec<A>>::bits_type order) {
    using word = order_word<A>;
    constexpr word sign = ~(~word{0} >> 1);
    const auto positive = (order & sign) != 0;
    return number<vec<A>>::from_bits(positive ? order ^ sign : ~order);
}

/// What a register of experts takes of `count` tokens: taken[t] = 1 for the `limit` best of each, equal ones by index.
/// Rows of scores and marks are N long; `left` of the experts exist.
template <int N, class A>
GATEFOLD_NOINLINE void take_best(const A* scores, index_t count, index_t limit, index_t left, std::uint8_t* taken) {
    using word_row = typename number<vec<A>>::bits_type;
    using word = order_word<A>;
    constexpr int W = lanes<A>;
    const auto row = [&](index_t t) { return load_first<A>(scores + t * N, left).raw; };
    const word_row none{}, wanted = none + static_cast<word>(limit);

    // The largest key that `limit` tokens reach. All of them reach `low`, since NaN counts as -inf; none reaches
    // `high`.
    word_row low = none + order_key(minus_infinity<A>), high = none + (order_key(real_format<A>::infinity) + 1u);
    for (std::size_t bit = 0; bit < 8 * sizeof(word); ++bit) {
        const word_row middle = low + ((high - low) >> 1);
        const auto key = keys_of<A>(middle).raw;
        word_row reach = none;
        for (index_t t = 0; t < count; ++t) reach -= reinterpret_cast<word_row>(row(t) >= key);
        const auto enough = reach >= wanted;
        low = enough ? middle : low;
        high = enough ? high : middle;
    }

    const auto bound = keys_of<A>(low).raw, least = broadcast<A>(minus_infinity<A>).raw;
    word_row places = wanted;  // for keys that are the bound
    for (index_t t = 0; t < count; ++t) places += reinterpret_cast<word_row>(row(t) > bound);
    for (index_t t = 0; t < count; ++t) {
        const auto key = row(t);
        const auto equal = ((key == bound) | ((key != key) & (bound == least))) & (places != none);
        places += reinterpret_cast<word_row>(equal);
        const auto marks = __builtin_convertvector((key > bound) | equal, unsigned_vec<std::uint8_t, W>) & 1;
        std::memcpy(taken + t * N, &marks, static_cast<std::size_t>(left < W ? left : W));
    }
}

/// Each expert takes its best tokens among [first, end): marks of memory.taken from memory.matrix.
template <layer_type L, class Memory>
void take_best_tokens(context<cpu>& ctx, const options<L>& o, index_t first, index_t end, const Memory& memory) {
    using A = typename L::accumulate_type;
    constexpr int N = L::choices, W = lanes<A>;
    constexpr capacity_config c = L::c.capacity;
    const index_t count = end - first;
    const index_t share = c.rule == capacity_rule::share
                              ? capacity_of(c, o.capacity_factor, count, N, L::top_k, o.training, 0)
                              : count * L::top_k / N;
    const index_t limit = share < count ? share : count;
    constexpr int blocks = ceil_div(N, W);
    const int parts = blocks < ctx.threads() ? blocks : ctx.threads();
    ctx.parallel(parts, [&](int part) {
        const range mine = part_of(blocks, part, parts);
        for (index_t block = mine.begin; block < mine.end; ++block) {
            const index_t at = first * N + block * W;
            take_best<N>(memory.matrix + at, count, limit, N - block * W, memory.taken + at);
        }
    });
}

/// The experts that took a token, ascending; -1 behind them.
template <int N>
void takers_of(const std::uint8_t* taken, std::int32_t* ids) {
    int used = 0;
    for (int first = 0; first < N; first += 8) {
        std::uint64_t marks = 0;
        std::memcpy(&marks, taken + first, static_cast<std::size_t>(N - first < 8 ? N - first : 8));
        for (int e = first; marks != 0; ++e, marks >>= 8)
            if ((marks & 1) != 0) ids[used++] = e;
    }
    for (; used < N; ++used) ids[used] = -1;
}

template <layer_type L, class Memory>
void assign_expert_choice(context<cpu>& ctx, const batch<L>& in, const options<L>& o, const routing_view<L>& out,
                          const Memory& memory) {
    using A = typename L::accumulate_type;
    constexpr score from = L::c.router.from;
    constexpr int N = L::choices;
    const index_t tokens = out.ids.extent(0);
    // Softmax over tokens is there already: score_columns.
    if constexpr (from != score::softmax_tokens)
        for_each_token(ctx, tokens, [&](index_t t) {
            const A* z = out.logits.row(t);
            A* scores = memory.matrix + t * N;
            if constexpr (from == score::softmax || from == score::softmax_selected) {
                const row_softmax<A> sum(z, N);
                const vec<A> m = broadcast<A>(sum.m), total = broadcast<A>(sum.total);
                const auto share = [&](vec<A> v) {
                    return sum.total == A(0) ? zeros<A>() : softmax_terms(v, m) / total;
                };
                map<A>(N, share, scores, z);
            } else {
                map<A>(
                    N, [](vec<A> v) { return scores_of<L::c.router.from>(v); }, scores, z);
            }
        });
    for_each_choice_group(in, tokens,
                          [&](index_t first, index_t end) { take_best_tokens(ctx, o, first, end, memory); });
    for_each_token(ctx, tokens, [&](index_t t) { takers_of<N>(memory.taken + t * N, out.ids.row(t)); });
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
