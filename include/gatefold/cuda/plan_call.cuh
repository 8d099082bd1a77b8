// The launches that make a plan: one up to 1024 pairs, from counts of groups of pairs beyond.
#pragma once

#include <gatefold/cuda/device/context.cuh>
#include <gatefold/cuda/plan.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

template <int N>
void scatter(context<cuda>& ctx, const expert_of_pair& id_of, index_t pairs, int group_pairs, int groups, int experts,
             const std::int32_t* counts, const plan_output& out) {
    // A block ranks pairs_at_once pairs in the time of one, and the more it has, the longer are the runs it writes.
    const int at_once = pairs_at_once / group_pairs, least = ceil_div(groups, most_scatter_blocks);
    const int each = at_once > least ? at_once : least, blocks = ceil_div(groups, each);
    scatter_pairs<N><<<static_cast<unsigned>(blocks + 1), plan_threads, 0, ctx.stream()>>>(
        id_of, pairs, group_pairs, groups, each, experts, counts, out);
}

/// The plan of given ids.
template <int N>
void make_plan(context<cuda>& ctx, const expert_of_pair& id_of, index_t pairs, int experts, const plan_output& out,
               std::int32_t* counts) {
    if (pairs <= pairs_at_once) {
        plan_in_one_block<N><<<1, plan_threads, 0, ctx.stream()>>>(id_of, static_cast<int>(pairs), experts, out);
    } else {
        const int groups = static_cast<int>(ceil_div(pairs, index_t{counted_pairs}));
        count_pairs<N><<<static_cast<unsigned>(groups), plan_threads, 0, ctx.stream()>>>(id_of, pairs, counts);
        scatter<N>(ctx, id_of, pairs, counted_pairs, groups, experts, counts, out);
    }
    check_kernel("make_plan");
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
