// What the benches compute on: random layers, and inputs that never find their weights in a cache.
//
//     random batches ── route ──> the experts each visits ──> an order of batches and a number of layer copies such
//     that between two uses of an expert more than twice the last-level cache is read
#pragma once

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include <gatefold/gatefold.hpp>

#include "probe.hpp"

namespace bench {

using namespace gatefold;

/// Fills with numbers uniform around 0; the value of an element depends on the stream and its place.
template <class T>
void fill(T* to, index_t n, double deviation, std::uint32_t stream) {
    const auto size = static_cast<float>(std::sqrt(3.0) * deviation * 0x1p-31);
    const std::uint32_t start = stream * 0x85ebca6bu;
    for (index_t i = 0; i < n; ++i) {
        std::uint32_t x = static_cast<std::uint32_t>(i) * 0x9e3779b1u + start;
        x = (x ^ x >> 16) * 0x7feb352du;
        x = (x ^ x >> 15) * 0x846ca68bu;
        x ^= x >> 16;
        to[i] = from_accumulate<T>(accumulate_t<T>(static_cast<float>(static_cast<std::int32_t>(x)) * size));
    }
}

/// Streams: parameters from 0 in their order, experts from 1000, batches from 1000000.
inline constexpr std::uint32_t expert_streams = 1000, input_streams = 1000000;

/// Fills every parameter that the set holds. With a skew the first feature of every token is 1 and makes the
/// popularity of experts follow Zipf's law of that exponent.
template <class Set>
void fill_parameters(Set& set, double skew) {
    std::uint32_t stream = 0;
    for_each_parameter(
        [&](const char* name, auto& slot) {
            using slot_type = std::remove_reference_t<decltype(slot)>;
            using T = typename slot_type::value_type;
            const std::string_view is = name;
            if (is == "router_scale" || is == "expert_scale" || is == "latent_norm" || is == "router_temperature") {
                for (index_t i = 0; i < slot.size(); ++i) slot.data()[i] = from_accumulate<T>(accumulate_t<T>(1));
                return;
            }
            const auto columns = static_cast<double>(slot.extent(slot_type::rank - 1));
            fill(slot.data(), slot.size(), 1 / std::sqrt(columns), stream++);
            if (skew > 0 && is == "router")
                for (index_t e = 0; e < slot.extent(0); ++e)
                    slot.data()[e * slot.size() / slot.extent(0)] =
                        from_accumulate<T>(static_cast<accumulate_t<T>>(-skew * std::log(static_cast<double>(e + 1))));
        },
        set);
}

/// A packed layer without its matrices: all that routing needs.
template <layer_type L>
packed<L> make_router(context<cpu>& ctx, double skew) {
    packed<L> p;
    detail::allocate_slots(p, ctx);
    fill_parameters(p, skew);
    return p;
}

template <layer_type L>
void make_layer(context<cpu>& ctx, double skew, weights<L>& w) {
    w = make_weights<L>(ctx);
    fill_parameters(w, skew);
}
/// Packed expert by expert, so that the weights are in memory once. each(e, gate_up, down) sees them before they are
/// gone; a shared expert is not shown.
template <layer_type L, class Each = void (*)(int, const void*, const void*)>
void make_layer(
    context<cpu>& ctx, double skew, packed<L>& p, Each each = [](int, const void*, const void*) {}) {
    if constexpr (L::shared_ffn > 0) {
        weights<L> w;
        make_layer(ctx, skew, w);
        p = pack(ctx, w);
    } else {
        using T = typename L::value_type;
        p = make_packed<L>(ctx);
        fill_parameters(p, skew);
        tensor<T, dyn, dyn> up({L::gate_up_rows, L::width}), down({L::width, L::ffn});
        for (int e = 0; e < L::experts; ++e) {
            const std::uint32_t stream = expert_streams + 2 * static_cast<std::uint32_t>(e);
            fill(up.data(), up.size(), 1 / std::sqrt(L::width), stream);
            fill(down.data(), down.size(), 1 / std::sqrt(L::ffn), stream + 1);
            pack_expert(ctx, p, e, std::as_const(up).view(), std::as_const(down).view());
            each(e, up.data(), down.data());
        }
    }
}

/// Equal copies of a layer, made when they are asked for.
template <class W>
struct copies {
    std::vector<W> all;
    double skew = 0;

    void want(context<cpu>& ctx, int count) {
        while (static_cast<int>(all.size()) < count) {
            W fresh;
            make_layer(ctx, skew, fresh);
            all.push_back(std::move(fresh));
        }
    }
};

/// How often calls take which copy and which batch: every copy sees one batch after the other.
struct rotation {
    int copies = 1;
    std::vector<int> order;  ///< of batches

    int copy(index_t call) const { return static_cast<int>(call % copies); }
    int batch(index_t call) const {
        return order[static_cast<std::size_t>(call / copies % static_cast<index_t>(order.size()))];
    }
};

/// Chooses `count` of the candidates, given the experts each visits, and the number of copies, such that more than
/// `apart` bytes are read between two uses of an expert.
rotation make_rotation(const std::vector<std::vector<int>>& candidates, int count, double expert_bytes, double apart);

/// Batches of tokens with their routing.
template <layer_type L>
struct inputs {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;

    index_t tokens = 0;
    rotation turn;
    std::vector<double> visited;  ///< distinct experts of each batch
    tensor<T, dyn, L::hidden> x;
    tensor<std::int32_t, dyn, L::slots> ids;
    tensor<A, dyn, L::slots> weights;
    tensor<std::int32_t, dyn> offsets, rows, place;  ///< plans, one after another
    tensor<std::int32_t, dyn> starts;

    double experts_of(index_t call) const { return visited[static_cast<std::size_t>(turn.batch(call))]; }
    batch<L> batch_of(index_t call) const {
        const index_t from = turn.batch(call) * tokens;
        batch<L> in{.x = x.view().slice(from, tokens)};
        in.sequence_starts = starts.view();
        if constexpr (L::c.router.select == selection::given) in.chosen = ids.view().slice(from, tokens);
        return in;
    }
    plan_view<cpu> plan_of(index_t call) {
        const index_t b = turn.batch(call), pairs = tokens * L::slots;
        return {{offsets.data() + b * (L::choices + 1), {L::choices + 1}},
                {rows.data() + b * pairs, {pairs}},
                {place.data() + b * pairs, {pairs}},
                tokens,
                L::slots};
    }
    view<const std::int32_t, dyn, L::slots> ids_of(index_t call) const {
        return ids.view().slice(turn.batch(call) * tokens, tokens);
    }
};

template <layer_type L>
inputs<L> make_inputs(index_t tokens, double skew) {
    context<cpu> ctx(1);
    inputs<L> in;
    in.tokens = tokens;
    // Few tokens leave a choice of batches that do not share experts; many visit all of them anyway.
    const int count = tokens <= 16 ? 16 : tokens <= 64 ? 8 : tokens <= 256 ? 4 : 2;
    const int drawn = tokens <= 16 && !L::is_dense ? 3 * count : count;
    in.x = make_tensor<typename L::value_type, dyn, L::hidden>(ctx, drawn * tokens);
    for (int b = 0; b < drawn; ++b)
        fill(in.x.view().row(b * tokens), tokens * L::hidden, 1, input_streams + static_cast<std::uint32_t>(b));
    if (skew > 0)
        for (index_t t = 0; t < drawn * tokens; ++t)
            in.x(t, 0) = from_accumulate<typename L::value_type>(accumulate_t<typename L::value_type>(1));
    in.starts = make_tensor<std::int32_t, dyn>(ctx, 1);
    in.starts.set_zero();

    constexpr auto bytes = static_cast<double>(expert_parameters(L::c)) * sizeof(typename L::value_type);
    const double apart = 2 * static_cast<double>(last_level_cache());
    std::vector<std::vector<int>> visited(static_cast<std::size_t>(drawn));
    if constexpr (L::is_dense) {
        for (std::vector<int>& v : visited) v = {0};
    } else {
        const index_t pairs = tokens * L::slots;
        in.ids = make_tensor<std::int32_t, dyn, L::slots>(ctx, drawn * tokens);
        in.weights = make_tensor<typename L::accumulate_type, dyn, L::slots>(ctx, drawn * tokens);
        in.offsets = make_tensor<std::int32_t, dyn>(ctx, drawn * (L::choices + 1));
        in.rows = make_tensor<std::int32_t, dyn>(ctx, drawn * pairs);
        in.place = make_tensor<std::int32_t, dyn>(ctx, drawn * pairs);
        auto logits = make_tensor<typename L::accumulate_type, dyn, L::choices>(ctx, tokens);
        const packed<L> router = make_router<L>(ctx, skew);
        if constexpr (L::c.router.select == selection::given)
            for (index_t i = 0; i < in.ids.size(); ++i)
                in.ids.data()[i] = static_cast<std::int32_t>((i / L::slots * 7919 + i % L::slots) % L::choices);
        in.turn.order.push_back(0);
        for (int b = 0; b < drawn; ++b) {
            in.turn.order[0] = b;
            route(
                ctx, router, in.batch_of(0),
                {in.ids.view().slice(b * tokens, tokens), in.weights.view().slice(b * tokens, tokens), logits.view()});
            const plan_view<cpu> plan = in.plan_of(0);
            make_plan<L>(ctx, in.ids_of(0), plan);
            for (int e = 0; e < L::experts; ++e)
                if (plan.offsets[e + 1] > plan.offsets[e]) visited[static_cast<std::size_t>(b)].push_back(e);
        }
    }
    in.turn = make_rotation(visited, count, bytes, apart);
    for (const std::vector<int>& v : visited) in.visited.push_back(static_cast<double>(v.size()));
    return in;
}

}  // namespace bench
