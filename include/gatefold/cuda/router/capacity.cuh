// Capacity on CUDA: who keeps a place when more pairs arrive at an expert than it takes.
//
//     ids ── plan of all pairs ──> admit_pairs: a block per expert selects its C first arrivals
//                                  ──> weights 0 where dropped, kept[T*S] or at once the plan of the kept pairs
//     groups of tokens, renormalise_kept: admit_pairs ──> kept, counts ── settle_pairs ──> plan, weights
//
// The pairs of an expert lie side by side in the plan of all pairs, in order of arrival for `position`; the other
// priorities select by a key and break ties by that order. Both offset rules let the same pairs in: positions behind
// all choices of earlier slots and behind those that were kept differ only where both exceed the capacity. So does the
// load of the busiest expert, which no expert's rank reaches.
#pragma once

#include <gatefold/cuda/router/capacity_keys.cuh>
#include <gatefold/cuda/router/select.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

template <class P>
struct limit_memory {
    union {
        plan_memory<P::choices> plan;
        select_memory select;
    };
    index_t most;
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// Writes one pair of the plan of all pairs into that of the kept ones, or marks it.
template <class P>
__device__ __forceinline__ void settle(const limit_arguments<P>& a, std::int32_t pair, bool kept, int row) {
    if (a.kept) a.kept[pair] = kept ? 1 : 0;
    if (!kept) a.weights[pair] = 0;
    if (!a.plans) return;
    a.plan.place[pair] = kept ? row : -1;
    if (kept) a.plan.rows[row] = pair;
}

/// Lets the `most` first of the rows [begin, begin + n) in; the kept ones go to the rows from `to` on.
template <class P, priority Keeps>
__device__ __forceinline__ void admit_group(select_memory& shared, const limit_arguments<P>& a, int begin, int n,
                                            index_t most, int to) {
    using word = order_word<typename P::accumulate_type>;
    const int thread = static_cast<int>(threadIdx.x);
    const std::int32_t* rows = a.rows + begin;
    if (n <= most || most <= 0 || Keeps == priority::position) {
        for (int i = thread; i < n; i += plan_threads) settle(a, rows[i], i < most, to + i);
        return;
    }
    // Earlier slots are larger words.
    constexpr bool by_slot = Keeps == priority::slot_major || Keeps == priority::importance ||
                             Keeps == priority::importance_sum,
                   by_word = Keeps != priority::slot_major,
                   computes = by_word && (by_slot || P::c.capacity.renormalise_kept);
    const auto slot_word = [&](int i) { return by_slot ? P::slots - 1 - rows[i] % P::slots : 0; };
    least_chosen<int> slot{0, static_cast<int>(most)};
    if constexpr (by_slot && P::slots > 1)
        slot = select_largest<bits_of<P::slots>, int>(
            shared, n, static_cast<int>(most), [](int) { return true; }, slot_word);
    const auto is_level = [&](int i) { return slot_word(i) == slot.word; };
    if constexpr (computes) {
        for (int i = thread / 32; i < n; i += plan_threads / 32) {
            if (!is_level(i)) continue;
            const word key = key_of_pair<P, Keeps>(a, rows[i]);
            if (thread % 32 == 0) a.words[begin + i] = key;
        }
        __syncthreads();
    }
    const auto word_of = [&](int i) -> word {
        if constexpr (computes)
            return a.words[begin + i];
        else
            return order_key(a.weights[rows[i]]);
    };
    least_chosen<word> least{0, slot.left};
    if constexpr (by_word) least = select_largest<8 * sizeof(word), word>(shared, n, slot.left, is_level, word_of);
    int kept_before = 0, ties_before = 0;
    for (int i0 = 0; i0 < n; i0 += plan_threads) {
        const int i = i0 + thread;
        bool above = false, ties = false;
        if (i < n) {
            above = slot_word(i) > slot.word;
            if (!above && is_level(i)) {
                if constexpr (by_word) {
                    const word w = word_of(i);
                    above = w > least.word;
                    ties = w == least.word;
                } else {
                    ties = true;
                }
            }
        }
        int total;
        const int tie = ties_before + block_exclusive<plan_threads>(ties ? 1 : 0, shared.scratch, total);
        ties_before += total;
        const bool kept = above || (ties && tie < least.left);
        const int row = to + kept_before + block_exclusive<plan_threads>(kept ? 1 : 0, shared.scratch, total);
        kept_before += total;
        if (i < n) settle(a, rows[i], kept, row);
    }
    __syncthreads();
}

/// The rows of one expert that are pairs of tokens before `token`.
__device__ __forceinline__ int rows_before(const std::int32_t* rows, int n, index_t first_pair) {
    int low = 0, high = n;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (rows[middle] < first_pair)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/// Offsets and tile list of the kept pairs by the calling block; kept_of(e) counts those of expert e.
template <class P, class KeptOf>
__device__ __forceinline__ void list_kept(plan_memory<P::choices>& shared, const limit_arguments<P>& a,
                                          KeptOf kept_of) {
    constexpr int N = P::choices;
    const int thread = static_cast<int>(threadIdx.x);
    int carry = 0;
    for (int e0 = 0; e0 <= N; e0 += plan_threads) {
        const int e = e0 + thread;
        int total;
        const int before = block_exclusive<plan_threads>(e < N ? kept_of(e) : 0, shared.scratch, total);
        if (e <= N) shared.start[e] = carry + before;
        carry += total;
    }
    __syncthreads();
    for (int e = thread; e <= N; e += plan_threads) a.plan.offsets[e] = shared.start[e];
    if (a.plan.tiles) list_tiles<N>(shared, a.experts, a.plan);
}
/// The kept pairs of all experts before `expert`.
template <class KeptOf>
__device__ __forceinline__ int kept_before(int expert, KeptOf kept_of, std::int32_t* scratch) {
    int own = 0, total;
    for (int e = static_cast<int>(threadIdx.x); e < expert; e += plan_threads) own += kept_of(e);
    block_exclusive<plan_threads>(own, scratch, total);
    return total;
}

/// Blocks (e, g) admit the pairs of expert e in the groups g, g + blocks, ...; where this kernel makes the plan there
/// is one group, and block (N, 0) writes offsets and tiles.
template <class P, priority Keeps>
__global__ void __launch_bounds__(plan_threads) admit_pairs(const limit_arguments<P> a) {
    constexpr int N = P::choices;
    __shared__ __align__(16) unsigned char storage[sizeof(limit_memory<P>)];
    limit_memory<P>& shared = *reinterpret_cast<limit_memory<P>*>(storage);
    const int expert = static_cast<int>(blockIdx.x);
    const auto kept_of = [&](int e) {
        const index_t n = a.offsets[e + 1] - a.offsets[e];
        return static_cast<int>(n < a.groups.most_of_last ? n : a.groups.most_of_last);
    };
    if (expert == N) {
        list_kept<P>(shared.plan, a, kept_of);
        return;
    }
    const int begin = a.offsets[expert], all = a.offsets[expert + 1] - begin;
    const int to = a.plans ? kept_before(expert, kept_of, shared.select.scratch) : 0;
    int kept = 0, seen = 0;
    for (int g = static_cast<int>(blockIdx.y); g < a.groups.count; g += a.blocks) {
        int low = 0, high = all;
        if (a.groups.count > 1) {
            low = rows_before(a.rows + begin, all, a.groups.begin(g) * P::slots);
            high = rows_before(a.rows + begin, all, a.groups.end(g) * P::slots);
        }
        if (high <= low) continue;
        __syncthreads();
        if (threadIdx.x == 0) shared.most = a.groups.limit(g);
        __syncthreads();
        const index_t most = shared.most, n = high - low;
        admit_group<P, Keeps>(shared.select, a, begin + low, high - low, most, to);
        kept += static_cast<int>(n < most ? n : most);
        seen += high - low;
    }
    if (threadIdx.x != 0) return;
    if (a.counts) a.counts[static_cast<index_t>(blockIdx.y) * N + expert] = kept;
    if (kept < seen) atomicAdd(&a.control->dropped, static_cast<unsigned long long>(seen - kept));
}

/// Blocks [0, N) write the kept pairs of an expert, block N offsets and tiles, the others the weights of tokens some of
/// whose pairs were dropped. Without a plan the first block has the number N + 1.
template <class P>
__global__ void __launch_bounds__(plan_threads) settle_pairs(const limit_arguments<P> a) {
    using A = typename P::accumulate_type;
    constexpr int N = P::choices;
    __shared__ __align__(16) unsigned char storage[sizeof(limit_memory<P>)];
    limit_memory<P>& shared = *reinterpret_cast<limit_memory<P>*>(storage);
    const int thread = static_cast<int>(threadIdx.x), role = static_cast<int>(blockIdx.x) + (a.plans ? 0 : N + 1);
    const auto kept_of = [&](int e) {
        int sum = 0;
        for (int b = 0; b < a.blocks; ++b) sum += a.counts[static_cast<index_t>(b) * N + e];
        return sum;
    };
    if (role == N) {
        list_kept<P>(shared.plan, a, kept_of);
    } else if (role < N) {
        const int begin = a.offsets[role], n = a.offsets[role + 1] - begin;
        int to = kept_before(role, kept_of, shared.select.scratch);
        for (int i0 = 0; i0 < n; i0 += plan_threads) {
            const std::int32_t pair = i0 + thread < n ? a.rows[begin + i0 + thread] : -1;
            const bool kept = pair >= 0 && a.kept[pair] != 0;
            int total;
            const int row = to + block_exclusive<plan_threads>(kept ? 1 : 0, shared.select.scratch, total);
            to += total;
            if (pair < 0) continue;
            a.plan.place[pair] = kept ? row : -1;
            if (kept) a.plan.rows[row] = pair;
        }
    } else if constexpr (P::c.capacity.renormalise_kept) {
        const index_t t = static_cast<index_t>(role - N - 1) * (plan_threads / 32) + thread / 32;
        if (t >= a.groups.tokens) return;
        token_state<P> s;
        if (!load_token(s, a, t)) return;
        A v[token_state<P>::lanes_of_slots];
        const A* z = a.logits + t * a.logits_stride;
        scores_of_chosen(
            s, [&](int e) { return z[e]; }, v);
        const auto counts = [&](int q) {
            const int slot = q * 32 + s.lane;
            return s.has(q) && a.kept[t * P::slots + slot] != 0;
        };
        weigh_scores(s, v, a.numbers, static_cast<const A*>(nullptr), counts);
        GATEFOLD_UNROLL
        for (int q = 0; q < int{token_state<P>::lanes_of_slots}; ++q)
            if (const int slot = q * 32 + s.lane; slot < P::slots) a.weights[t * P::slots + slot] = s.weights[q];
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
