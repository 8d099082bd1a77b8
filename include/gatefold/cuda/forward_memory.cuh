// The workspace of forward on CUDA.
#pragma once

#include <gatefold/core/workspace.hpp>
#include <gatefold/cuda/experts/experts.cuh>
#include <gatefold/cuda/router/limit.cuh>
#include <gatefold/cuda/router/route_call.cuh>
#include <gatefold/cuda/router/router.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// The workspace of one forward call.
template <layer_type L>
struct forward_memory {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    static constexpr index_t routed(index_t tokens) { return L::is_dense ? 0 : tokens; }
    static constexpr index_t groups(index_t tokens) {
        return ceil_div(tokens, index_t{few_tokens::tokens}) + ceil_div(tokens * L::slots, index_t{counted_pairs});
    }
    static constexpr int least_tile = 8;

    std::int32_t *ids, *offsets, *rows, *place, *counts, *tile_count;
    A *weights, *logits, *gates;
    tile* tiles;
    T *scaled, *activated, *returned, *shared_activated, *shared_returned;
    T *given, *multiplied, *latent_x, *latent_normal, *widened;
    A* latent_sums;
    route_buffers<L> route;
    limit_buffers<L> limit;
    static constexpr bool latent = L::c.latent > 0;
    static constexpr bool apart = L::shared_ffn > 0 && !shared_rides<L>;  ///< the shared expert has products of its own
    /// Rows that the products hand on: the plan's, then those of a shared expert that rides along.
    static constexpr index_t rows_of_products(index_t tokens) {
        return tokens * (L::slots + (shared_rides<L> ? 1 : 0));
    }
    /// Counting has no memory to point to.
    static constexpr T* behind(T* rows, index_t elements) { return rows ? rows + elements : nullptr; }
    static constexpr bool scales = sizeof(T) == 2 && L::c.router.acts_on == weight_at::input;

    constexpr forward_memory(carver& memory, index_t tokens)
        : ids(memory.take<std::int32_t>(routed(tokens) * L::slots)),
          offsets(memory.take<std::int32_t>(L::choices + 1)),
          rows(memory.take<std::int32_t>(routed(tokens) * L::slots)),
          place(memory.take<std::int32_t>(routed(tokens) * L::slots)),
          counts(memory.take<std::int32_t>(routed(groups(tokens)) * L::choices)),
          tile_count(memory.take<std::int32_t>(1)),
          weights(memory.take<A>(routed(tokens) * L::slots)),
          logits(memory.take<A>(routed(tokens) * L::choices)),
          gates(memory.take<A>(L::c.shared.gate ? tokens : 0)),
          tiles(memory.take<tile>(routed(1) * most_tiles(tokens * L::slots, L::choices, least_tile))),
          scaled(memory.take<T>(scales ? tokens * L::slots * row_pitch(L::width) : 0)),
          activated(memory.take<T>(rows_of_products(tokens) * row_pitch(L::ffn))),
          returned(memory.take<T>(rows_of_products(tokens) * row_pitch(L::width))),
          shared_activated(apart ? memory.take<T>(tokens * row_pitch(L::shared_ffn))
                                 : behind(activated, tokens * L::slots * row_pitch(L::ffn))),
          shared_returned(apart ? memory.take<T>(tokens * row_pitch(L::hidden))
                                : behind(returned, tokens * L::slots * row_pitch(L::width))),
          given(memory.take<T>(shares_jitter(L::c) ? tokens * row_pitch(L::hidden) : 0)),
          multiplied(memory.take<T>(L::c.router.input_times_k ? tokens * row_pitch(L::hidden) : 0)),
          latent_x(memory.take<T>(latent ? tokens * row_pitch(L::width) : 0)),
          latent_normal(memory.take<T>(latent ? tokens * row_pitch(L::width) : 0)),
          widened(memory.take<T>(latent ? tokens * row_pitch(L::hidden) : 0)),
          latent_sums(memory.take<A>(latent ? tokens * L::width : 0)),
          route(memory, routed(tokens)),
          limit(memory, routed(tokens)) {}
};

template <layer_type L>
constexpr std::size_t forward_bytes(index_t tokens) {
    carver count(nullptr);
    const forward_memory<L> memory(count, tokens);
    return count.used();
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
