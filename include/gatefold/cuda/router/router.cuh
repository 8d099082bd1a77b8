// The router on CUDA, one launch: blocks share the experts of a group of tokens; the last of them routes the tokens,
// and the last of all makes the plan where it is small.
//
//     x[T,H] · router[N,H]^T ──> logits ── last block of the tokens ──> ids, weights ── last of all ──> plan
//                                                              └──> pairs per expert of the group (scatter's input)
//
// Where a shared expert has a gate, a block more per group of tokens computes it from the rows the others read.
//
// Which block comes last varies; what it computes does not. A logit is one chain of fused multiply-adds in ascending h,
// as on the CPU: a function of H alone, whatever the batch.
#pragma once

#include <gatefold/cuda/device/context.cuh>
#include <gatefold/cuda/gemm/simt.cuh>
#include <gatefold/cuda/plan.cuh>
#include <gatefold/cuda/router/token.cuh>
#include <gatefold/cuda/router/transform.cuh>
#include <gatefold/cuda/router/weigh.cuh>
#include <gatefold/moe/router_mixer.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

template <class P>
struct route_arguments {
    using A = typename P::accumulate_type;
    using R = typename P::router_type;
    const typename P::input_type* x = nullptr;
    index_t x_stride = 0;
    const typename P::matrix_type* router = nullptr;
    const R *router_bias = nullptr, *expert_scale = nullptr;
    const A *selection_bias = nullptr, *temperature = nullptr;
    transform_inputs<P> transform = {};
    const std::int32_t* given = nullptr;  ///< ids from outside
    index_t given_stride = 0;
    std::int32_t* ids = nullptr;
    A *weights = nullptr, *logits = nullptr;
    index_t ids_stride = 0, weights_stride = 0, logits_stride = 0;
    int first = 0, tokens = 0;  ///< tokens [first, tokens) are this launch's
    route_numbers numbers = {};
    device_control* control = nullptr;
    std::int32_t* counts = nullptr;  ///< [groups, N], or null
    bool plans = false;              ///< the last block makes the plan
    A* scores = nullptr;             ///< [T, N] for assignment over the batch: logits and scores only, no routing
    plan_output plan = {};
    shared_gate<typename P::value_type> gate = {};
};

/// Tokens and experts of a block: few tokens want many blocks, many tokens want their weights read seldom. `from` is
/// the least number of tokens in a call.
struct few_tokens {
    static constexpr int from = 1, tokens = 8, experts = 32, depth = 64, stages = 8, rows_each = 1;
};
struct some_tokens {
    static constexpr int from = 513, tokens = 32, experts = 32, depth = 64, stages = 5, rows_each = 2;
};
struct many_tokens {
    static constexpr int from = 4096, tokens = 64, experts = 64, depth = 32, stages = 4, rows_each = 4;
};

/// launch(shape) with the shape for that many tokens.
template <class Launch>
void for_tokens(index_t tokens, Launch launch) {
    if (tokens < some_tokens::from)
        launch(few_tokens{});
    else if (tokens < many_tokens::from)
        launch(some_tokens{});
    else
        launch(many_tokens{});
}

/// The scores by which experts choose the token.
template <class P>
__device__ __forceinline__ void score_token(const token_state<P>& s, typename P::accumulate_type* scores) {
    using A = typename P::accumulate_type;
    constexpr score from = P::c.router.from;
    if constexpr (P::c.router.select == selection::expert_choice && from != score::softmax_tokens) {
        constexpr bool softmax = from == score::softmax || from == score::softmax_selected;
        A total = 1;
        if constexpr (softmax) total = s.over_logits([&](int i) { return softmax_term(s.z[i], s.largest); });
        GATEFOLD_UNROLL
        for (int i = 0; i < int{token_state<P>::lanes_of_logits}; ++i) {
            const int e = i * 32 + s.lane;
            if (e >= P::choices) continue;
            if constexpr (softmax)
                scores[e] = share_of(softmax_term(s.z[i], s.largest), total);
            else
                scores[e] = score_of<from>(s.z[i]);
        }
    }
}

/// The gates of the tokens [first, first + tokens), by a block that does nothing else: their chains are as long as
/// those of the logits.
template <class T>
__device__ __forceinline__ void gate_tokens(const shared_gate<T>& g, index_t first, int tokens) {
    for (int m = static_cast<int>(threadIdx.x) / 32; m < tokens; m += plan_threads / 32) {
        const accumulate_t<T> gate = gate_by_warp(g.x + (first + m) * g.x_stride, g.weights, g.width);
        if (threadIdx.x % 32 == 0) g.out[first + m] = gate;
    }
}

/// Everything behind the logits of one token.
template <class P>
__device__ __forceinline__ void route_token(const route_arguments<P>& a, index_t t, unsigned (&found)[3]) {
    using A = typename P::accumulate_type;
    constexpr router_config r = P::c.router;
    using state = token_state<P>;
    state s;
    s.lane = static_cast<int>(threadIdx.x) % 32;
    A* logits = a.logits + t * a.logits_stride;
    const auto logit = [&](int e) { return __ldcg(logits + e); };
    order_word<A> best = 0;
    GATEFOLD_UNROLL
    for (int i = 0; i < int{state::lanes_of_logits}; ++i) {
        const int e = i * 32 + s.lane;
        s.z[i] = e < P::choices ? logit(e) : -real_format<A>::infinity;
    }
    const index_t token = a.numbers.first_token + t;
    if (transform_logits(s, a.transform, a.numbers, t, token)) {
        GATEFOLD_UNROLL
        for (int i = 0; i < int{state::lanes_of_logits}; ++i)
            if (const int e = i * 32 + s.lane; e < P::choices) logits[e] = s.z[i];
        __threadfence_block();
        __syncwarp();
    }
    unsigned nans = 0, infinities = 0;
    GATEFOLD_UNROLL
    for (int i = 0; i < int{state::lanes_of_logits}; ++i) {
        const bool exists = i * 32 + s.lane < P::choices;
        nans += static_cast<unsigned>(__popc(__ballot_sync(all_lanes, exists && is_nan(s.z[i]))));
        infinities += static_cast<unsigned>(__popc(__ballot_sync(all_lanes, exists && is_infinite(s.z[i]))));
        const order_word<A> word = order_key(s.z[i]);
        best = word > best ? word : best;
    }
    s.largest = key_of<A>(warp_max(best));
    const bool undecided = !(s.largest > -real_format<A>::infinity);
    found[0] += nans;
    found[1] += infinities;
    found[2] += undecided ? 1u : 0u;
    if constexpr (router_traits<P>::by_batch) {
        if (a.scores) return score_token(s, a.scores + t * P::choices);
    }

    GATEFOLD_UNROLL
    for (int q = 0; q < int{state::lanes_of_slots}; ++q) {
        const int slot = q * 32 + s.lane;
        s.ids[q] = -1;
        if (slot >= P::slots) continue;
        if (a.given)
            s.ids[q] = a.given[t * a.given_stride + slot];
        else if (undecided)
            s.ids[q] = r.select == selection::positive ? -1 : slot;
    }
    if constexpr (r.select == selection::sparse_mixer) {
        if (!undecided) {
            // Two picks over one row: a lane does them as the CPU does.
            if (s.lane == 0) {
                std::int32_t ids[2] = {-1, -1};
                A v[2], factor[2], weights[2];
                if (a.given)
                    for (int j = 0; j < 2; ++j) ids[j] = a.given[t * a.given_stride + j];
                mixer_choose(static_cast<const A*>(logits), P::choices, static_cast<A>(a.numbers.noise),
                             a.numbers.training, a.numbers.draw, token, a.given != nullptr, ids, v, factor);
                for (int j = 0; j < 2; ++j) v[j] = gatefold::mul(v[j], factor[j]);
                weigh_token<P>(
                    v, ids, a.numbers.scale, a.numbers.epsilon, a.expert_scale, [](int) { return true; }, weights);
                for (int j = 0; j < 2; ++j) {
                    a.ids[t * a.ids_stride + j] = ids[j];
                    a.weights[t * a.weights_stride + j] = weights[j];
                }
            }
            return;
        }
    } else if (!a.given && !undecided) {
        choose(s, a.selection_bias, a.numbers, token);
    }
    weigh(s, undecided, a.expert_scale, a.numbers, token, logit);
    GATEFOLD_UNROLL
    for (int q = 0; q < int{state::lanes_of_slots}; ++q) {
        const int slot = q * 32 + s.lane;
        if (slot >= P::slots) continue;
        a.ids[t * a.ids_stride + slot] = s.ids[q];
        a.weights[t * a.weights_stride + slot] = s.weights[q];
    }
}

template <class P, class Shape>
__global__ void __launch_bounds__(plan_threads) route_tokens(const route_arguments<P> a) {
    using T = typename P::value_type;
    using A = typename P::accumulate_type;
    using X = typename P::input_type;
    using M = typename P::matrix_type;
    constexpr int N = P::choices;
    using product =
        simt_tile<X, M, Shape::tokens, Shape::experts, Shape::depth, Shape::stages, plan_threads, Shape::rows_each>;
    // Only calls of few pairs plan here.
    constexpr bool may_plan = Shape::from * P::slots <= pairs_at_once;
    union memory {
        product tile;
        std::conditional_t<may_plan, plan_memory<N>, std::int32_t> plan;
        std::int32_t counts[std::size_t{N}];
    };
    __shared__ __align__(16) unsigned char storage[sizeof(memory)];
    __shared__ int flag;
    memory& shared = *reinterpret_cast<memory*>(storage);
    const int thread = static_cast<int>(threadIdx.x);
    const int first = a.first + static_cast<int>(blockIdx.x) * Shape::tokens;
    const int tokens = a.tokens - first < Shape::tokens ? a.tokens - first : Shape::tokens;
    const int expert = static_cast<int>(blockIdx.y) * Shape::experts;
    unsigned shares = gridDim.y;
    if constexpr (P::gates) {
        if (a.gate.out && blockIdx.y == --shares) return gate_tokens(a.gate, first, tokens);
    }

    A acc[std::size_t{product::rows_each}][std::size_t{product::columns_each}];
    if constexpr (P::c.router.logits != projection::none) {
        // The whole way of the rows is known: memory may begin before the ring comes to it.
        if constexpr (Shape::rows_each == 1) {
            constexpr int lines = static_cast<int>((P::depth * sizeof(M) + 127) / 128);
            for (int i = thread; i < Shape::experts * lines; i += plan_threads)
                if (const int e = expert + i / lines; e < N)
                    prefetch_line(
                        reinterpret_cast<const unsigned char*>(a.router + static_cast<index_t>(e) * P::depth) +
                        i % lines * 128);
        }
        simt_product<product, P::depth, plan_threads, X, M>(
            shared.tile, acc, [&](int m) -> const X* { return m < tokens ? a.x + (first + m) * a.x_stride : nullptr; },
            [&](int n) -> const M* {
                return expert + n < N ? a.router + static_cast<index_t>(expert + n) * P::depth : nullptr;
            },
            no_factor{});
    }
    GATEFOLD_UNROLL
    for (int i = 0; i < product::rows_each; ++i) {
        GATEFOLD_UNROLL
        for (int j = 0; j < product::columns_each; ++j) {
            const int m = thread / product::columns_apart + i * product::rows_apart;
            const int e = expert + thread % product::columns_apart + j * product::columns_apart;
            if (m >= tokens || e >= N) continue;
            A z = P::c.router.logits == projection::none ? A(0) : acc[i][j];
            if constexpr (P::c.router.logits == projection::cosine) z = z / temperature_floor(*a.temperature);
            if constexpr (P::c.router.bias) z += to_accumulate(a.router_bias[e]);
            if constexpr (P::c.router.logits_in == precision::storage) z = to_accumulate(from_accumulate<T>(z));
            a.logits[(first + m) * a.logits_stride + e] = z;
        }
    }
    if (!last_to_arrive(&a.control->arrived[blockIdx.x], shares, &flag)) return;

    unsigned found[3] = {};
    for (int m = thread / 32; m < tokens; m += plan_threads / 32) route_token<P>(a, first + m, found);
    if (thread % 32 == 0) {
        if (found[0]) atomicAdd(&a.control->nan_logits, static_cast<unsigned long long>(found[0]));
        if (found[1]) atomicAdd(&a.control->infinite_logits, static_cast<unsigned long long>(found[1]));
        if (found[2]) atomicAdd(&a.control->undecided, static_cast<unsigned long long>(found[2]));
        if (thread == 0) atomicAdd(&a.control->tokens, static_cast<unsigned long long>(tokens));
    }
    if (a.counts) {
        __syncthreads();
        for (int e = thread; e < N; e += plan_threads) shared.counts[e] = 0;
        __syncthreads();
        for (int i = thread; i < tokens * P::slots; i += plan_threads) {
            const std::int32_t e = a.ids[static_cast<index_t>(first) * P::slots + i];
            if (e >= 0) atomicAdd(&shared.counts[e], 1);
        }
        __syncthreads();
        const index_t group = first / Shape::tokens;
        for (int e = thread; e < N; e += plan_threads) a.counts[group * N + e] = shared.counts[e];
    }
    if constexpr (may_plan) {
        if (a.plans && last_to_arrive(&a.control->arrived_groups, gridDim.x, &flag))
            plan_by_block<N>(shared.plan, a.tokens * P::slots, P::experts, expert_of_pair{a.ids, nullptr}, a.plan);
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
