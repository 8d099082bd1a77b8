// Forward of one token through a layer whose weights stay in a core's caches: no workspace, no plan, no threads.
//
//     x ── chains of the router ──> z[N] ── route_token ──> ids, weights ── experts ascending: one_row ──> sums ──> y
//
// Taken at inference by packed layers of small experts (takes_one_token); everything else, and every batch, goes the
// way of forward.hpp, whose bits these are. Everything lies on the stack.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <gatefold/cpu/experts/one_row.hpp>
#include <gatefold/cpu/experts/packed.hpp>
#include <gatefold/cpu/router/router.hpp>
#include <gatefold/cpu/rows.hpp>
#include <gatefold/moe/check.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Packed bytes of one expert up to which a token goes alone: a quarter of the smallest second-level cache of the tiers
/// that have four registers of floats in it, beyond which a call waits for its weights, not for its parts.
inline constexpr std::size_t small_expert_bytes = std::size_t{256} << 10;
/// Bytes of a row on the stack, and experts whose logits are chains of their own.
inline constexpr int small_row_bytes = 8192, small_choices = 32;

template <class E>
inline constexpr bool is_small_expert = packed_bytes<E>() <= small_expert_bytes &&
                                        (E::width > E::ffn ? E::width : E::ffn) * 4 <= small_row_bytes;

/// Whether a router is one product at inference, and its choice one of each token by itself.
template <layer_type L>
constexpr bool routes_one_token() {
    constexpr router_config r = L::c.router;
    constexpr bool one_product = r.logits == projection::linear && r.input == router_input::tokens &&
                                 r.transform != logit_transform::residual && r.transform != logit_transform::normalised;
    return one_product && L::choices <= small_choices && L::choices == L::experts && !drops(L::c) &&
           r.select != selection::expert_choice && r.from != score::softmax_tokens;
}

/// Whether inference of one token takes this way.
template <class W, layer_type L = typename W::layer_type>
constexpr bool takes_one_token() {
    if constexpr (!is_packed<W> || !std::is_same_v<typename W::backend, cpu>) {
        return false;
    } else {
        bool fits = is_small_expert<routed_expert<L>> && (L::shared_ffn == 0 || is_small_expert<shared_expert<L>>);
        if constexpr (!L::is_dense)
            fits = fits && routes_one_token<L>() && L::c.latent == 0 && !L::c.router.input_times_k &&
                   L::c.router.acts_on == weight_at::output;
        return fits;
    }
}

/// One step of a chain, as vectors take it: rounded once where the target has such an instruction.
template <class A>
GATEFOLD_INLINE A chain_step(A a, A b, A c) {
#if GATEFOLD_HARDWARE_FMA
    return gatefold::fma(a, b, c);
#else
    return gatefold::mul(a, b) + c;
#endif
}

/// The logits of one token: each a chain of its own, as many side by side as hide their latency.
template <class W, layer_type L = typename W::layer_type>
GATEFOLD_INLINE void one_token_logits(const W& w, const typename L::value_type* x, typename L::accumulate_type* z) {
    using A = typename L::accumulate_type;
    constexpr int H = L::hidden, N = L::choices, together = N < 8 ? N : 8;
    const auto chains = [&]<int... At>(int first, std::integer_sequence<int, At...>) {
        const auto* row = w.router.data() + index_t{first} * H;
        A sums[] = {(static_cast<void>(At), A(0))...};
        for (int h = 0; h < H; ++h) {
            const A v = to_accumulate(x[h]);
            ((sums[At] = chain_step<A>(v, to_accumulate(row[At * H + h]), sums[At])), ...);
        }
        ((z[first + At] = sums[At]), ...);
    };
    int first = 0;
    for (; first + together <= N; first += together) chains(first, std::make_integer_sequence<int, together>{});
    if constexpr (N % together != 0) chains(first, std::make_integer_sequence<int, N % together>{});
    finish_logits(w, z);
}

/// One token of a batch: what experts and router read, ids given from outside or null, and its number.
template <layer_type L>
struct one_token {
    const typename L::value_type *x, *router_x;
    const std::int32_t* chosen = nullptr;
    index_t number = 0;
};

/// What a token's routing comes to: its experts and their weights.
template <layer_type L>
struct one_routing {
    std::int32_t ids[std::size_t{L::slots}];
    typename L::accumulate_type weights[std::size_t{L::slots}];
};

template <class W, layer_type L = typename W::layer_type>
GATEFOLD_INLINE void route_one(context<cpu>& ctx, const W& w, const one_token<L>& in, const options<L>& o,
                               one_routing<L>& to) {
    using A = typename L::accumulate_type;
    A z[std::size_t{L::choices}], keys[std::size_t{L::choices}];
    one_token_logits(w, in.router_x, z);
    ++ctx.report().tokens;
    const bool undecided = count_unusual(z, L::choices, ctx.report()), given = in.chosen != nullptr;
    for (int s = 0; given && s < L::slots; ++s) to.ids[s] = in.chosen[s];
    route_token<L>(z, undecided, given, selection_bias_of(w), expert_scale_of(w), o, in.number, keys, to.ids,
                   to.weights);
}

/// Registers of sums of one token.
template <layer_type L>
struct one_output {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    static constexpr int width = lanes<A>, registers = ceil_div(L::hidden, width);
    alignas(64) A sums[std::size_t{registers}][std::size_t{width}];

    GATEFOLD_INLINE void clear() {
        for (int j = 0; j < registers; ++j) store(sums[j], zeros<A>());
    }
    GATEFOLD_INLINE void add_product(int j, A weight, vec<A> z) {
        store(sums[j], number<vec<A>>::fma(broadcast<A>(weight), z, load<A>(sums[j])));
    }
    GATEFOLD_INLINE static void put(T* y, int j, vec<A> sum, bool accumulate) {
        const index_t left = L::hidden - j * width;
        if (accumulate) sum = add(sum, load_first<A>(y + j * width, left));
        store_first(y + j * width, sum, left);
    }
};

/// Runs every row of a form's stage through deliver(register, z).
template <class E, class Form, class Deliver>
GATEFOLD_INLINE void run_one_row(const one_expert<E>& weights, const typename E::value_type* x,
                                 typename E::sum_type limit, const Deliver& deliver) {
    using row = one_row<E, Form>;
    typename row::input_row room;
    row{weights, row::input_row::of(x, room), broadcast<typename E::sum_type>(limit)}(deliver);
}

/// Forward of one token in one order of sums.
template <order Sums, class W, layer_type L = typename W::layer_type>
GATEFOLD_INLINE void forward_one_row(context<cpu>& ctx, const W& w, const one_token<L>& in, typename L::value_type* y,
                                     const options<L>& o) {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    using form = form_for<T, Sums>;
    using routed = routed_expert<L>;
    using output = one_output<L>;
    const T* x = in.x;
    const packed_weights<T> all = routed_weights(w);
    if constexpr (L::is_dense) {
        run_one_row<routed, form>(one_expert<routed>(all, 0), x, static_cast<A>(o.limit),
                                  [&](int j, vec<A> z) { output::put(y, j, z, o.accumulate); });
    } else {
        one_routing<L> routing;
        route_one(ctx, w, in, o, routing);
        output out;
        out.clear();
        const ordered_slots<L::slots> order(routing.ids);
        for (int i = 0; i < order.count; ++i) {
            const int s = order.slot[i];
            const A weight = routing.weights[s];
            run_one_row<routed, form>(one_expert<routed>(all, routing.ids[s]), x, static_cast<A>(o.limit),
                                      [&](int j, vec<A> z) { out.add_product(j, weight, z); });
        }
        if constexpr (L::c.router.scaled == scale_at::output)
            for (int j = 0; j < output::registers; ++j)
                store(out.sums[j], mul(load<A>(out.sums[j]), broadcast<A>(static_cast<A>(o.scale))));
        if constexpr (L::shared_ffn > 0) {
            using shared = shared_expert<L>;
            A weight = 1;
            if constexpr (L::c.shared.gate) weight = sigmoid(dot<A>(x, w.shared_gate.data(), L::hidden));
            run_one_row<shared, form>(one_expert<shared>(shared_weights(w), 0), x, static_cast<A>(o.shared_limit),
                                      [&](int j, vec<A> z) { out.add_product(j, weight, z); });
        }
        for (int j = 0; j < output::registers; ++j) output::put(y, j, load<A>(out.sums[j]), o.accumulate);
    }
}

/// Forward of one token at inference; see the top of this file.
template <class W, layer_type L = typename W::layer_type>
GATEFOLD_NOINLINE void forward_one_token(context<cpu>& ctx, const W& w, const one_token<L>& in,
                                         typename L::value_type* y, const options<L>& o) {
    if constexpr (!L::is_dense) check_options("route", o);
    if constexpr (std::is_same_v<typename L::value_type, bf16>)
        if (resolve(ctx.sums()) == order::dot) return forward_one_row<order::dot>(ctx, w, in, y, o);
    forward_one_row<order::portable>(ctx, w, in, y, o);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <class W>
    requires(on_cpu::takes_one_token<W>())
inline constexpr bool has_short_calls<W> = true;

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER
