// Forward whose rows are added to y as they come, by atomics of the down projection: no combine, and no expert outputs
// in memory, but the order of a token's sum is the device's. Not part of gatefold.hpp.
//
//     forward(ctx, unordered, w, x, y)      routing and plan are those of forward(ctx, w, x, y); y differs in last
//     bits,
//                                           from it and from call to call
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

/// run_experts with a second projection that adds its rows to `to`.
template <class Kind, bool Packed, bool Factor, bool WithShared, class T>
void run_summed(context<cuda>& ctx, const expert_matrices<T>& w, const grouped_product<T>& tokens, index_t pairs,
                int experts, int tile_rows, const stage_output<T>& memory, const row_sums<T>& to,
                const expert_matrices<T>& shared = {}) {
    constexpr int W = Kind::width, F = Kind::ffn;
    constexpr bool bias = Kind::bias;
    constexpr auto none = activation::identity;
    const index_t row_tiles = row_tiles_of<WithShared>(tokens, pairs, experts, tile_rows);
    summed_product<T> up{first_product<F>(tokens, w, shared, memory.activated), to};
    if constexpr (Kind::matrix_cores && Factor) {
        scale_rows<T, W><<<static_cast<unsigned>(pairs < 2048 ? pairs : 2048), 256, 0, ctx.stream()>>>(
            tokens, memory.count, memory.scaled);
        check_launch("forward: scaled rows");
        up.in = memory.scaled;
        up.in_stride = row_pitch(W);
        up.pairs = nullptr;
    }
    const summed_product<T> down{second_product<T>(up, w, shared, nullptr, 0), to};
    if constexpr (Kind::matrix_cores) {
        constexpr bool aligned = Factor || W % 8 == 0;
        run_projection(
            ctx,
            summed<projection_of<T, F, W, true, Kind::act, bias, Packed, aligned, false, Kind::listed, WithShared>>{},
            up, row_tiles, tile_rows, "forward: first projection");
        run_projection(
            ctx, summed<projection_of<T, W, F, false, none, bias, Packed, true, false, Kind::listed, WithShared>>{},
            down, row_tiles, tile_rows, "forward: second projection");
    } else {
        constexpr int features = Kind::gated ? simt_columns / 2 : simt_columns;
        const auto tiles = static_cast<unsigned>(row_tiles);
        simt_experts<T, F, W, true, Kind::act, bias, Factor, WithShared, summed_product<T>>
            <<<dim3(tiles, unsigned{ceil_div(F, features)}), 128, 0, ctx.stream()>>>(up);
        check_launch("forward: first projection");
        simt_experts<T, W, F, false, none, bias, false, WithShared, summed_product<T>>
            <<<dim3(tiles, unsigned{ceil_div(W, simt_columns)}), 128, 0, ctx.stream()>>>(down);
        check_launch("forward: second projection");
    }
}

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

    constexpr bool rides = shared_rides<L>;
    grouped_product<T> p;
    p.in = rows.in;
    p.in_stride = rows.in_stride;
    p.limit = static_cast<A>(o.limit);
    p.tiles = plan.tiles;
    p.tile_count = plan.tile_count;
    p.pairs = plan.rows;
    p.slots = L::slots;
    if constexpr (on_input) p.factor = routing.weights.data();
    expert_matrices<T> shared{};
    if constexpr (L::shared_ffn > 0) shared = shared_matrices(w);
    if constexpr (rides) {
        p.rows = static_cast<int>(tokens);
        p.shared.in = rows.given;
        p.shared.in_stride = rows.given_stride;
        p.shared.limit = static_cast<A>(o.shared_limit);
        p.shared.row = to.shared_row;
    }
    run_summed<routed_kind<L>, is_packed<W>, on_input, rides>(
        ctx, routed_matrices(w), p, tokens * L::slots, L::experts, tile_rows,
        stage_output<T>{memory.activated, nullptr, 0, false, memory.scaled, plan.offsets + L::experts}, to, shared);
    if constexpr (forward_memory<L>::apart) {
        grouped_product<T> s;
        s.in = rows.given;
        s.in_stride = rows.given_stride;
        s.rows = static_cast<int>(tokens);
        s.limit = static_cast<A>(o.shared_limit);
        to.clears = false;
        to.shared_row = 0;
        run_summed<shared_kind<L>, is_packed<W>, false, false>(
            ctx, shared, s, tokens, 1, tile_rows_for<T>(ctx, tokens, 1),
            stage_output<T>{memory.shared_activated, nullptr, 0, false}, to);
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
