// Routing as a stage of its own: tokens to chosen experts and their weights.
#pragma once

#include <gatefold/moe/check.hpp>
#include <gatefold/moe/seam.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// The router on backend B:
///     route(ctx, w, in, options, out)     routes the tokens with workspace of the context
///     apply_capacity(ctx, in, options, routing, kept)
template <backend B>
struct routing_impl;

/// Numbers of the call that the configuration has no use for.
template <layer_type L>
void check_options(const char* function, const options<L>& o) {
    constexpr router_config r = L::c.router;
    constexpr bool uses_noise = has_jitter(L::c) || r.select == selection::sampled ||
                                r.select == selection::sparse_mixer || r.transform == logit_transform::gaussian ||
                                r.transform == logit_transform::gumbel || r.transform == logit_transform::normalised;
    constexpr bool uses_threshold = r.threshold > 0;
    require(o.noise >= 0 && (uses_noise || o.noise == 0), function, "options.noise",
            uses_noise ? "zero or more" : "zero, since the configuration has no .router.noise", o.noise);
    require(uses_threshold ? o.threshold > 0 : o.threshold == 0, function, "options.threshold",
            uses_threshold ? "a number above zero" : "zero, since the configuration has no .router.threshold",
            o.threshold);
    if constexpr (r.noise_on == input_noise::dropout)
        require(o.noise < 1, function, "options.noise", "a probability below 1", o.noise);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Routes the tokens of `in`: fills ids in key order (-1 in an empty slot), their weights, and the logits behind them.
///
/// Shapes:  in.x [T, H], out.ids and out.weights [T, S], out.logits [T, N]; T may be 0, which writes nothing.
/// Throws:  argument_error for views that do not fit, are null or misaligned; nothing is written then.
/// Capacity is not applied: that is apply_capacity.
template <layer_weights W>
void route(context<typename W::backend>& ctx, const W& w,
           const std::type_identity_t<batch<typename W::layer_type, typename W::backend>>& in,
           const std::type_identity_t<routing_view<typename W::layer_type, typename W::backend>>& out,
           const options<typename W::layer_type>& o = {}) {
    using L = typename W::layer_type;
    static_assert(!L::is_dense, "gatefold::route: a dense layer has no router; run it with gatefold::forward");
    const index_t tokens = in.x.extent(0);
    detail::check_batch("route", ctx, in, true);
    if (in.previous_logits.data()) detail::check_view("route", "previous_logits", in.previous_logits, tokens);
    detail::check_view("route", "ids", out.ids, tokens);
    detail::check_view("route", "weights", out.weights, tokens);
    detail::check_view("route", "logits", out.logits, tokens);
    detail::check_disjoint("route", "ids", out.ids, "weights", out.weights);
    detail::check_disjoint("route", "ids", out.ids, "logits", out.logits);
    detail::check_disjoint("route", "weights", out.weights, "logits", out.logits);
    detail::check_disjoint("route", "logits", out.logits, "x", in.x);
    detail::check_weights("route", w);
    detail::check_options("route", o);
    if (tokens == 0) return;
    detail::routing_impl<typename W::backend>::route(ctx, w, in, o, out);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
