// What a routing call on CUDA is given, and the memory it works in.
#pragma once

#include <gatefold/core/workspace.hpp>
#include <gatefold/cuda/plan.cuh>
#include <gatefold/cuda/router/policy.cuh>
#include <gatefold/moe/router.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// Workspace of routing.
template <layer_type L>
struct route_buffers {
    using A = typename L::accumulate_type;
    using source = logits_source<L>;
    static constexpr bool moves = source::normed || has_jitter(L::c),
                          noisy = L::c.router.transform == logit_transform::noisy_top_k,
                          cosine = L::c.router.logits == projection::cosine;
    static constexpr bool choice = L::c.router.select == selection::expert_choice,
                          sinkhorn = L::c.router.select == selection::sinkhorn, assigns = choice || sinkhorn;
    A *input, *features, *directions, *deviations, *matrix, *d0, *d1;
    std::uint8_t* taken;

    constexpr route_buffers(carver& memory, index_t tokens)
        : input(memory.take<A>(moves ? tokens * L::hidden : 0)),
          features(memory.take<A>(source::deep ? tokens * source::depth : 0)),
          directions(memory.take<A>(cosine ? index_t{L::choices} * source::depth : 0)),
          deviations(memory.take<A>(noisy ? tokens * L::choices : 0)),
          matrix(memory.take<A>(assigns ? tokens * L::choices : 0)),
          d0(memory.take<A>(sinkhorn ? tokens : 0)),
          d1(memory.take<A>(sinkhorn ? 2 * L::choices : 0)),
          taken(memory.take<std::uint8_t>(choice ? tokens * L::choices : 0)) {}
};
template <layer_type L>
constexpr std::size_t route_bytes(index_t tokens) {
    carver count(nullptr);
    const route_buffers<L> memory(count, tokens);
    return count.used();
}

template <layer_type L>
counter_rng draws_of(const options<L>& o) {
    return {o.seed, o.step, static_cast<int>(o.layer)};
}
/// Whether noise disturbs the router's input in this call.
template <layer_type L>
bool is_disturbed(const options<L>& o) {
    return has_jitter(L::c) && o.training && o.noise > 0;
}

/// Routers whose training assigns over the batch in a way that no kernel here does: an auction is one long chain.
template <layer_type L>
inline constexpr bool assigns_on_the_cpu = L::c.router.select == selection::balanced;

/// What a routing call is given.
template <class W, layer_type L = typename W::layer_type>
struct route_call {
    using A = typename L::accumulate_type;
    const W& w;
    const batch<L, cuda>& in;
    const options<L>& o;
    const routing_view<L, cuda>& out;
    const route_buffers<L>& memory;
    const plan_output* plan;  ///< where the plan goes, or null
    std::int32_t* counts;     ///< scratch of the plan
    A* deviations;            ///< where the tape keeps those of learned noise, or null
    shared_gate<typename L::value_type> gate = {};
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
