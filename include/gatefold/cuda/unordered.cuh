// Forward whose rows are added to y as they come, by atomics of the down projection: no combine, and no expert outputs
// in memory, but the order of a token's sum is the device's. Not part of gatefold.hpp.
//
//     forward(ctx, unordered, w, x, y)      routing and plan are those of forward(ctx, w, x, y); the last bits of y
//                                           differ from its, and from call to call
#pragma once

#include <gatefold/cuda/unordered_rules.hpp>
#include <gatefold/gatefold.hpp>

namespace gatefold::inline v0 {

/// Asks for sums over experts in whatever order they come.
struct unordered_t {};
inline constexpr unordered_t unordered{};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// The workspace of forward with its expert outputs replaced: sums of 16-bit layers, and who has arrived.
template <layer_type L>
struct unordered_memory : forward_memory<L> {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    static constexpr bool rounds = row_sums<T>::rounds;
    A* sums;
    unsigned* arrived;

    constexpr unordered_memory(carver& memory, index_t tokens)
        : forward_memory<L>(memory, tokens),
          sums(reinterpret_cast<A*>(this->returned)),  // two outputs of 16 bits or more are a float
          arrived(
              memory.take<unsigned>(rounds ? tokens * ceil_div(index_t{L::width}, index_t{row_sums<T>::window}) : 0)) {}
};
template <layer_type L>
std::size_t unordered_bytes(index_t tokens) {
    carver count(nullptr);
    const unordered_memory<L> memory(count, tokens);
    return count.used();
}

/// The expert stage whose second projection adds its rows to `to`.
template <class T>
struct unordered_stage {
    row_sums<T> to;

    template <class Kind, bool Packed, bool Factor, bool WithShared>
    void run(context<cuda>& ctx, const expert_matrices<T>& w, const grouped_product<T>& p, index_t pairs, int experts,
             int tile_rows, const stage_output<T>& memory, const expert_matrices<T>& shared = {}) const {
        run_experts<Kind, Packed, Factor, WithShared>(ctx, w, summed_product<T>{p, to}, pairs, experts, tile_rows,
                                                      memory, shared);
    }
};

template <class W, layer_type L = typename W::layer_type>
void unordered_forward(context<cuda>& ctx, const W& w, const batch<L, cuda>& in, const output_of<W>& y,
                       const options<L>& o) {
    static_assert(supported<L>::value && unordered_supported<L>::value);
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    constexpr bool on_input = L::c.router.acts_on == weight_at::input;
    const call_scope scope(ctx, "forward");
    check_device_batch("forward", in, ctx.device());
    check_device_memory("forward", "y", y, ctx.device());
    check_device_weights("forward", w, ctx.device());
    check_row_starts<T, L::hidden>("forward", "x", in.x);
    const index_t tokens = in.x.extent(0);
    carver arrays(ctx.workspace(unordered_bytes<L>(tokens)));
    const unordered_memory<L> memory(arrays, tokens);
    const routing_view<L, cuda> routing{
        {memory.ids, {tokens, L::slots}}, {memory.weights, {tokens, L::slots}}, {memory.logits, {tokens, L::choices}}};
    tape<L, cuda>* none = nullptr;
    const int tile_rows = tile_rows_for<T>(ctx, tokens * L::slots, L::experts);
    const token_rows<T> rows = read_rows(ctx, in, o, memory);
    const plan_output plan = route_and_plan(ctx, w, in, o, rows, routing, none, memory, tile_rows);

    row_sums<T> to;
    if constexpr (row_sums<T>::rounds) {
        to.sums = memory.sums;
        to.stride = row_pitch(L::width);
    } else {
        to.sums = y.data();
        to.stride = y.row_stride();
    }
    to.weights = on_input ? nullptr : routing.weights.data();
    to.pairs = plan.rows;
    to.place = plan.place;
    to.y = y.data();
    to.y_stride = y.row_stride();
    to.arrived = memory.arrived;
    if constexpr (L::c.router.scaled == scale_at::output) to.scale = static_cast<A>(o.scale);
    to.tokens = static_cast<int>(tokens);
    to.slots = L::slots;
    to.shared_row = static_cast<int>(tokens * L::slots);
    to.rows_each = L::slots + (L::shared_ffn > 0 ? 1 : 0);
    to.clears = true;
    to.accumulate = o.accumulate;

    routed_products<unordered_stage<T>, shared_rides<L>>(ctx, w, rows, plan, routing.weights.data(), tokens, o, nullptr,
                                                         nullptr, memory, nullptr, 0, false, {to});
    if constexpr (forward_memory<L>::apart) {
        to.clears = false;
        to.shared_row = 0;
        shared_products<unordered_stage<T>>(ctx, w, rows, tokens, o, nullptr, memory, {to});
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// forward(ctx, w, in, y, o) without a combine: the down projection adds its rows to y, or to sums of float that the
/// last of a token's rows rounds.
///
/// Bits:    ids, weights and plan are those of forward. y is a sum over unrounded expert outputs in no fixed order: it
///          may differ from call to call.
/// Throws:  as forward does. A layer that leaves something to the combine (free experts, a latent width, a gated shared
///          expert) does not compile.
template <layer_weights W>
void forward(context<cuda>& ctx, unordered_t, const W& w,
             const std::type_identity_t<batch<typename W::layer_type, cuda>>& in, output_of<W> y,
             const options<typename W::layer_type>& o = {}) {
    detail::check_forward(ctx, w, in, y, o);
    if (in.x.extent(0) == 0) return;
    detail::on_cuda::unordered_forward(ctx, w, in, y, o);
    ctx.end_call("forward");
}
template <layer_weights W>
void forward(context<cuda>& ctx, unordered_t tag, const W& w, input_of<W> x, output_of<W> y,
             const options<typename W::layer_type>& o = {}) {
    forward(ctx, tag, w, batch<typename W::layer_type, cuda>{.x = x}, y, o);
}

/// Makes room for such calls over at most `most_tokens` tokens, as ctx.reserve<L>(most_tokens) does for ordered ones.
template <layer_type L>
void reserve(context<cuda>& ctx, unordered_t, index_t most_tokens) {
    ctx.reserve<L>(most_tokens);
    ctx.reserve_bytes(detail::on_cuda::unordered_bytes<L>(most_tokens));
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
