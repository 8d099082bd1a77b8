// Routers that look at all tokens of a batch before they give one its experts, on CUDA.
//
//     expert_choice   scores[T,N] ── choose_tokens: a block per expert and group ──> taken[T,N] ── route_assigned
//     sinkhorn        logits ── balance: one block, rows and columns scaled in turn ──> d0[T], d1[N] ── route_assigned
//
// The iteration of sinkhorn ends on the device when it has converged; its sums have the CPU's orders.
#pragma once

#include <gatefold/cuda/router/capacity_keys.cuh>
#include <gatefold/cuda/router/router.cuh>
#include <gatefold/cuda/router/select.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

template <class P>
struct assign_arguments {
    using A = typename P::accumulate_type;
    capacity_groups groups = {};  ///< among which experts choose
    const A* logits = nullptr;
    index_t logits_stride = 0;
    A* matrix = nullptr;                  ///< [T, N] scores, or exp(logits)
    std::uint8_t* taken = nullptr;        ///< [T, N]
    const std::int32_t* given = nullptr;  ///< ids from outside, or null
    index_t given_stride = 0;
    A *d0 = nullptr, *d1 = nullptr;
    const typename P::router_type* expert_scale = nullptr;
    std::int32_t* ids = nullptr;
    A* weights = nullptr;
    index_t ids_stride = 0, weights_stride = 0;
    int tokens = 0;
    route_numbers numbers = {};
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// matrix = the softmax of the logits over the tokens of each group, expert by expert, summed upwards.
template <class P>
__global__ void __launch_bounds__(plan_threads) score_columns(const assign_arguments<P> a) {
    using A = typename P::accumulate_type;
    __shared__ A terms[plan_threads];
    __shared__ A total;
    const int thread = static_cast<int>(threadIdx.x), e = static_cast<int>(blockIdx.x);
    for (int g = static_cast<int>(blockIdx.y); g < a.groups.count; g += static_cast<int>(gridDim.y)) {
        const index_t begin = a.groups.begin(g), end = a.groups.end(g);
        const auto logit = [&](index_t t) { return a.logits[t * a.logits_stride + e]; };
        A m = -real_format<A>::infinity;
        for (index_t t = begin + thread; t < end; t += plan_threads) m = logit(t) > m ? logit(t) : m;
        __syncthreads();
        terms[thread] = m;
        __syncthreads();
        for (int half = plan_threads / 2; half > 0; half /= 2) {
            if (thread < half && terms[thread + half] > terms[thread]) terms[thread] = terms[thread + half];
            __syncthreads();
        }
        m = terms[0];
        if (thread == 0) total = 0;
        for (index_t first = begin; first < end; first += plan_threads) {
            __syncthreads();
            if (first + thread < end) terms[thread] = softmax_term(logit(first + thread), m);
            __syncthreads();
            if (thread == 0) {
                A sum = total;
                for (int i = 0; i < plan_threads && first + i < end; ++i) sum += terms[i];
                total = sum;
            }
        }
        __syncthreads();
        for (index_t t = begin + thread; t < end; t += plan_threads)
            a.matrix[t * P::choices + e] = share_of(softmax_term(logit(t), m), total);
    }
}

/// taken[t, e]: expert e is among those that choose token t; equal scores go to the earlier token.
template <class P>
__global__ void __launch_bounds__(plan_threads) choose_tokens(const assign_arguments<P> a) {
    using word = order_word<typename P::accumulate_type>;
    constexpr int N = P::choices;
    __shared__ select_memory shared;
    __shared__ index_t share;
    const int thread = static_cast<int>(threadIdx.x), e = static_cast<int>(blockIdx.x);
    for (int g = static_cast<int>(blockIdx.y); g < a.groups.count; g += static_cast<int>(gridDim.y)) {
        const index_t begin = a.groups.begin(g);
        const int n = static_cast<int>(a.groups.end(g) - begin);
        if (n <= 0) continue;
        __syncthreads();
        if (thread == 0)
            share = a.groups.rule.rule == capacity_rule::share ? a.groups.limit(g) : index_t{n} * P::top_k / N;
        __syncthreads();
        const int limit = static_cast<int>(share < n ? share : n);
        const auto word_of = [&](int i) { return order_key(a.matrix[(begin + i) * N + e]); };
        least_chosen<word> least{0, 0};
        if (limit > 0 && limit < n)
            least = select_largest<8 * sizeof(word), word>(
                shared, n, limit, [](int) { return true; }, word_of);
        int before = 0;
        for (int i0 = 0; i0 < n; i0 += plan_threads) {
            const int i = i0 + thread;
            const word w = i < n ? word_of(i) : word(0);
            const bool ties = i < n && w == least.word;
            int total;
            const int tie = before + block_exclusive<plan_threads>(ties ? 1 : 0, shared.scratch, total);
            before += total;
            const bool chosen = limit > 0 && (limit == n || w > least.word || (ties && tie < least.left));
            if (i < n) a.taken[(begin + i) * N + e] = chosen ? 1 : 0;
        }
    }
}

/// The scales d0, d1 that balance exp(logits), by one block of 1024 threads.
template <class P>
__global__ void __launch_bounds__(1024) balance(const assign_arguments<P> a) {
    using A = typename P::accumulate_type;
    constexpr int N = P::choices, each = (N + 31) / 32;
    constexpr A highest = 80, tiny = A(1e-8), close = A(1e-4), one = 1;
    __shared__ int goes_on;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    A* next = a.d1 + N;
    for (index_t t = warp; t < a.tokens; t += 32)
        for (int e = lane; e < N; e += 32) {
            const A z = a.logits[t * a.logits_stride + e];
            a.matrix[t * N + e] = is_nan(z) ? A(0) : gatefold::exp(z < highest ? z : highest);
        }
    for (int e = thread; e < N; e += 1024) a.d1[e] = 1;
    __syncthreads();
    for (int iteration = 0; iteration < 1000; ++iteration) {
        for (index_t t = warp; t < a.tokens; t += 32) {
            A own = 0;
            for (int i = 0; i < each; ++i)
                if (const int e = i * 32 + lane; e < N) own += gatefold::mul(a.matrix[t * N + e], a.d1[e]);
            const A sum = warp_sum(own);
            if (lane == 0) a.d0[t] = one / gatefold::mul(static_cast<A>(a.tokens), sum + tiny);
        }
        __syncthreads();
        for (int e = thread; e < N; e += 1024) {
            A sum = 0;
            for (index_t t = 0; t < a.tokens; ++t) sum = gatefold::fma(a.matrix[t * N + e], a.d0[t], sum);
            next[e] = one / gatefold::mul(static_cast<A>(N), sum + tiny);
        }
        __syncthreads();
        if (warp == 0) {
            A own = 0;
            for (int i = 0; i < each; ++i)
                if (const int e = i * 32 + lane; e < N)
                    own += next[e] > a.d1[e] ? next[e] - a.d1[e] : a.d1[e] - next[e];
            const A change = warp_sum(own) / static_cast<A>(N);
            if (lane == 0) goes_on = change > close ? 1 : 0;
        }
        __syncthreads();
        for (int e = thread; e < N; e += 1024) a.d1[e] = next[e];
        const bool ends = goes_on == 0;
        __syncthreads();
        if (ends) break;
    }
}

/// Ids and weights of the tokens from what was assigned; a warp per token.
template <class P>
__global__ void __launch_bounds__(plan_threads) route_assigned(const assign_arguments<P> a) {
    using A = typename P::accumulate_type;
    using state = token_state<P>;
    constexpr int N = P::choices, S = P::slots;
    const index_t t = static_cast<index_t>(blockIdx.x) * (plan_threads / 32) + threadIdx.x / 32;
    if (t >= a.tokens) return;
    state s;
    const A* z = a.logits + t * a.logits_stride;
    const bool decided = read_logits(s, z);
    const A* row = a.matrix + t * N;
    std::int32_t* ids = a.ids + t * a.ids_stride;
    if (a.given) {
        GATEFOLD_UNROLL
        for (int q = 0; q < int{state::lanes_of_slots}; ++q) {
            const int slot = q * 32 + s.lane;
            s.ids[q] = slot < S ? a.given[t * a.given_stride + slot] : -1;
        }
    } else if constexpr (P::c.router.select == selection::expert_choice) {
        int used = 0;
        GATEFOLD_UNROLL
        for (int i = 0; i < int{state::lanes_of_logits}; ++i) {
            const int e = i * 32 + s.lane;
            const bool is_taken = e < N && a.taken[t * N + e] != 0;
            const unsigned mask = __ballot_sync(all_lanes, is_taken);
            if (is_taken) ids[used + __popc(mask & ((1u << s.lane) - 1u))] = e;
            used += __popc(mask);
        }
        __syncwarp();
        GATEFOLD_UNROLL
        for (int q = 0; q < int{state::lanes_of_slots}; ++q) {
            const int slot = q * 32 + s.lane;
            s.ids[q] = slot < used ? ids[slot] : -1;
        }
    } else {
        order_word<A> words[state::lanes_of_logits];
        GATEFOLD_UNROLL
        for (int i = 0; i < int{state::lanes_of_logits}; ++i) {
            const int e = i * 32 + s.lane;
            words[i] = e < N ? order_key(gatefold::mul(gatefold::mul(row[e], a.d1[e]), a.d0[t])) : order_word<A>(0);
        }
        take_best(s, words, 0, S);
    }
    if constexpr (P::c.router.from == score::softmax_tokens) {
        unsigned choosers = 0;
        GATEFOLD_UNROLL
        for (int q = 0; q < int{state::lanes_of_slots}; ++q)
            choosers += static_cast<unsigned>(__popc(__ballot_sync(all_lanes, s.has(q))));
        GATEFOLD_UNROLL
        for (int q = 0; q < int{state::lanes_of_slots}; ++q)
            s.weights[q] = s.has(q) ? scale_weight<P>(row[s.ids[q]] / static_cast<A>(choosers), a.numbers.scale,
                                                      static_cast<const A*>(nullptr), s.ids[q])
                                    : A(0);
    } else {
        weigh(s, !decided, a.expert_scale, a.numbers, a.numbers.first_token + t, [&](int e) { return z[e]; });
    }
    GATEFOLD_UNROLL
    for (int q = 0; q < int{state::lanes_of_slots}; ++q) {
        const int slot = q * 32 + s.lane;
        if (slot >= S) continue;
        ids[slot] = s.ids[q];
        a.weights[t * a.weights_stride + slot] = s.weights[q];
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
