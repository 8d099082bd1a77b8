// The launches of routers that assign over the batch: scores of columns where asked, assignment, ids and weights, plan.
#pragma once

#include <gatefold/cuda/plan_call.cuh>
#include <gatefold/cuda/router/assign.cuh>
#include <gatefold/cuda/router/route_call.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// The groups of tokens among which experts choose: as the capacity says; without one the sequences of the batch, or
/// all tokens where it names none.
template <layer_type L>
capacity_groups choice_groups(const batch<L, cuda>& in, const options<L>& o) {
    constexpr capacity_config c = L::c.capacity;
    const index_t tokens = in.x.extent(0);
    capacity_groups g;
    g.tokens = g.size = tokens;
    g.rule = c;
    g.factor = decimal_of(o.capacity_factor);
    g.experts = L::choices;
    g.top_k = L::top_k;
    g.training = o.training;
    if constexpr (c.shared_by == capacity_group::fixed) {
        g.size = c.group_size < tokens ? c.group_size : tokens;
        g.count = static_cast<int>(ceil_div(tokens, g.size));
    } else if (in.sequence_starts.data() &&
               (c.rule == capacity_rule::none || c.shared_by == capacity_group::sequence)) {
        g.starts = in.sequence_starts.data();
        g.count = static_cast<int>(in.sequence_starts.extent(0));
    }
    if constexpr (c.rule == capacity_rule::share) {
        const auto most = [&](index_t n) {
            return capacity_of(c, o.capacity_factor, n, L::choices, L::top_k, o.training, 0);
        };
        g.most = most(g.size);
        g.most_of_last = most(tokens - (g.count - 1) * g.size);
    }
    return g;
}

/// Ids and weights of all tokens from the logits and scores of the batch, then the plan.
template <class P, class W, layer_type L = typename W::layer_type>
void assign_batch(context<cuda>& ctx, P, const route_call<W>& call, const route_arguments<P>& r) {
    using memory = route_buffers<L>;
    const index_t tokens = call.in.x.extent(0);
    assign_arguments<P> a;
    a.groups = choice_groups(call.in, call.o);
    a.logits = r.logits;
    a.logits_stride = r.logits_stride;
    a.matrix = call.memory.matrix;
    a.taken = call.memory.taken;
    a.given = call.in.chosen.data();
    a.given_stride = call.in.chosen.row_stride();
    a.d0 = call.memory.d0;
    a.d1 = call.memory.d1;
    a.expert_scale = r.expert_scale;
    a.ids = r.ids;
    a.weights = r.weights;
    a.ids_stride = r.ids_stride;
    a.weights_stride = r.weights_stride;
    a.tokens = static_cast<int>(tokens);
    a.numbers = r.numbers;
    const int blocks = a.groups.count < most_group_blocks ? a.groups.count : most_group_blocks;
    const dim3 grid(static_cast<unsigned>(P::choices), static_cast<unsigned>(blocks));
    if constexpr (L::c.router.from == score::softmax_tokens) {
        score_columns<P><<<grid, plan_threads, 0, ctx.stream()>>>(a);
        check_kernel("route: scores");
    }
    if constexpr (memory::choice) {
        if (!a.given) choose_tokens<P><<<grid, plan_threads, 0, ctx.stream()>>>(a);
    } else {
        balance<P><<<1, 1024, 0, ctx.stream()>>>(a);
    }
    check_kernel("route: assignment");
    constexpr int warps = plan_threads / 32;
    route_assigned<P><<<static_cast<unsigned>(ceil_div(tokens, index_t{warps})), plan_threads, 0, ctx.stream()>>>(a);
    check_kernel("route: assigned");
    if (call.plan) make_plan<P::choices>(ctx, {r.ids, nullptr}, tokens * L::slots, L::experts, *call.plan, call.counts);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
