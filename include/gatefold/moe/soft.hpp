// Soft MoE (arXiv 2308.00951): every slot of every expert reads a mixture of all tokens, every token a mixture of all
// slots. Nothing is chosen, so nothing is dropped; and a token sees later ones.
//
//     x[T,H] ── soft_dispatch ──> slots[S,H] ── any layer, slots as its tokens ──> returned[S,H] ── soft_combine ──>
//     y[T,H] dx <── soft_dispatch_backward ── d slots <── backward of that layer ── d returned <──
//     soft_combine_backward ── dy
//
// The experts are those of a layer whose choice is given: routers::hash with one expert per token, slot s going to
// expert s / (S / E) (soft_slots). One call is one group of tokens: an image, a sequence.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>

#include <gatefold/core/context.hpp>
#include <gatefold/core/dtype.hpp>
#include <gatefold/core/random.hpp>
#include <gatefold/core/tensor.hpp>
#include <gatefold/moe/check.hpp>

namespace gatefold::inline v0 {

/// The parameters of a soft router over H numbers per token with S slots: one direction per slot, and their scale.
///
/// logit[t, s] = scale · <x_t / ||x_t||, direction_s / ||direction_s||>.
template <class T, int Hidden, int Slots>
struct soft_router {
    using value_type = T;
    using accumulate_type = accumulate_t<T>;
    static constexpr int hidden = Hidden, slots = Slots;
    tensor<T, Slots, Hidden> directions;
    tensor<accumulate_type, 1> scale;
};

/// What soft_dispatch keeps for the other three calls; at most `most_tokens` tokens.
template <class T, int Hidden, int Slots>
struct soft_tape {
    using accumulate_type = accumulate_t<T>;
    tensor<accumulate_type, dyn, Slots> cosines, dispatch, combine, logit_gradients;
    tensor<accumulate_type, dyn, Hidden> unit_tokens;
    tensor<accumulate_type, dyn> lengths;
    tensor<accumulate_type, Slots, Hidden> unit_directions;
    tensor<accumulate_type, Slots> direction_lengths;
    index_t tokens = 0;

    soft_tape() = default;
    GATEFOLD_INLINE soft_tape(context<cpu>& ctx, index_t most_tokens)
        : cosines(make_tensor<accumulate_type, dyn, Slots>(ctx, most_tokens)),
          dispatch(make_tensor<accumulate_type, dyn, Slots>(ctx, most_tokens)),
          combine(make_tensor<accumulate_type, dyn, Slots>(ctx, most_tokens)),
          logit_gradients(make_tensor<accumulate_type, dyn, Slots>(ctx, most_tokens)),
          unit_tokens(make_tensor<accumulate_type, dyn, Hidden>(ctx, most_tokens)),
          lengths(make_tensor<accumulate_type, dyn>(ctx, most_tokens)),
          unit_directions(make_tensor<accumulate_type, Slots, Hidden>(ctx)),
          direction_lengths(make_tensor<accumulate_type, Slots>(ctx)) {}
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// Soft MoE on backend B over elements of type T: the four calls below.
template <backend B, class T>
struct soft_impl;

template <class T, int H, int S>
void check_soft_tape(const char* function, const soft_tape<T, H, S>& saved, index_t tokens) {
    if (!(saved.tokens == tokens)) [[unlikely]]
        reject(function, "tape", counted("a tape of ", tokens, " tokens"), saved.tokens);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// A soft router whose directions are drawn from N(0, 1/H), its scale 1.
template <class T, int H, int S>
soft_router<T, H, S> random_soft_router(context<cpu>& ctx, std::uint64_t seed, int layer_number = 0) {
    soft_router<T, H, S> r{make_tensor<T, S, H>(ctx), make_tensor<accumulate_t<T>, 1>(ctx)};
    const counter_rng draw{seed, 0, layer_number};
    for (index_t i = 0; i < r.directions.size(); ++i)
        r.directions.data()[i] = from_accumulate<T>(static_cast<accumulate_t<T>>(
            draw.normal<double>(purpose::initialisation, i / H, i % H) / std::sqrt(double{H})));
    r.scale.data()[0] = 1;
    return r;
}

/// The ids that send slot s to expert s / (S / experts): batch::chosen of the experts' layer.
///
/// Throws: argument_error where the experts cannot have as many slots each.
inline void soft_slots(view<std::int32_t, dyn, 1> chosen, int experts) {
    const index_t slots = chosen.extent(0);
    require(experts >= 1 && slots % experts == 0, "soft_slots", "experts", "a divisor of the number of slots", experts);
    for (index_t s = 0; s < slots; ++s) chosen(s, 0) = static_cast<std::int32_t>(s / (slots / experts));
}

/// slots[s] = Σ over the tokens of softmax over tokens of logit[t, s] · x[t].
///
/// Shapes:  x [T, H] with T at least 1, slots [S, H].
/// Throws:  argument_error for views that do not fit or a tape without room; nothing is written then. std::bad_alloc.
/// Bits:    the same for any number of threads.
template <class T, int H, int S>
void soft_dispatch(context<cpu>& ctx, const soft_router<T, H, S>& r, std::type_identity_t<view<const T, dyn, H>> x,
                   soft_tape<T, H, S>& saved, std::type_identity_t<view<T, dyn, H>> slots) {
    const index_t tokens = x.extent(0);
    require(tokens >= 1 && tokens <= saved.lengths.extent(0), "soft_dispatch", "x",
            "one token to as many as the tape has room for", tokens);
    detail::check_view("soft_dispatch", "x", x, tokens);
    detail::check_view("soft_dispatch", "slots", slots, S);
    detail::check_disjoint("soft_dispatch", "slots", slots, "x", x);
    detail::soft_impl<cpu, T>::dispatch(ctx, r, x, saved, slots);
}

/// y[t] = Σ over the slots of softmax over slots of logit[t, s] · returned[s].
///
/// Shapes:  returned [S, H], y [T, H] for the T tokens of the dispatch.
/// Throws:  as soft_dispatch.
template <class T, int H, int S>
void soft_combine(context<cpu>& ctx, const soft_tape<T, H, S>& saved,
                  std::type_identity_t<view<const T, dyn, H>> returned, std::type_identity_t<view<T, dyn, H>> y) {
    detail::check_soft_tape("soft_combine", saved, y.extent(0));
    detail::check_view("soft_combine", "returned", returned, S);
    detail::check_view("soft_combine", "y", y, y.extent(0));
    detail::check_disjoint("soft_combine", "y", y, "returned", returned);
    detail::soft_impl<cpu, T>::combine(ctx, saved, returned, y);
}

/// d_returned from dy, and on the tape the part of the logits' gradient that comes through the combine.
template <class T, int H, int S>
void soft_combine_backward(context<cpu>& ctx, soft_tape<T, H, S>& saved,
                           std::type_identity_t<view<const T, dyn, H>> returned,
                           std::type_identity_t<view<const T, dyn, H>> dy,
                           std::type_identity_t<view<T, dyn, H>> d_returned) {
    detail::check_soft_tape("soft_combine_backward", saved, dy.extent(0));
    detail::check_view("soft_combine_backward", "returned", returned, S);
    detail::check_view("soft_combine_backward", "dy", dy, dy.extent(0));
    detail::check_view("soft_combine_backward", "d_returned", d_returned, S);
    detail::soft_impl<cpu, T>::combine_backward(ctx, saved, returned, dy, d_returned);
}

/// dx and the router's gradients from d_slots, after soft_combine_backward; gradients are overwritten, or added to.
template <class T, int H, int S>
void soft_dispatch_backward(context<cpu>& ctx, const soft_router<T, H, S>& r,
                            std::type_identity_t<view<const T, dyn, H>> x, soft_tape<T, H, S>& saved,
                            std::type_identity_t<view<const T, dyn, H>> d_slots,
                            std::type_identity_t<view<T, dyn, H>> dx, soft_router<accumulate_t<T>, H, S>& gradients,
                            bool accumulate = false) {
    detail::check_soft_tape("soft_dispatch_backward", saved, x.extent(0));
    detail::check_view("soft_dispatch_backward", "x", x, x.extent(0));
    detail::check_view("soft_dispatch_backward", "d_slots", d_slots, S);
    detail::check_view("soft_dispatch_backward", "dx", dx, x.extent(0));
    detail::check_disjoint("soft_dispatch_backward", "dx", dx, "x", x);
    detail::soft_impl<cpu, T>::dispatch_backward(ctx, r, x, saved, d_slots, dx, gradients, accumulate);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER

#include <gatefold/cpu/soft.hpp>
