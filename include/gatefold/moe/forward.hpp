// The layer's forward pass: checks, then the wing of the backend.
//
//     x[T,H] ── route ──> ids[T,S] weights[T,S] ── capacity ──> kept ── make_plan ──> offsets rows place
//     x ── experts (plan) ──> z[rows,W] ── combine (weights, plan) ──> y[T,H]      shared expert last
//     one expert: x ── experts ──> y; nothing else is compiled
#pragma once

#include <type_traits>

#include <gatefold/moe/check.hpp>
#include <gatefold/moe/seam.hpp>
#include <gatefold/moe/tape.hpp>

namespace gatefold::inline v0::inline GATEFOLD_TIER {
/// Bytes of workspace that forward over `tokens` tokens takes.
template <layer_type L, backend B = cpu>
constexpr std::size_t forward_workspace_bytes(index_t tokens, int threads) {
    return detail::impl<B>::template forward_bytes<L>(tokens, threads);
}
/// Bytes of workspace that forward and backward over `tokens` tokens take.
template <layer_type L, backend B = cpu>
constexpr std::size_t training_workspace_bytes(index_t tokens, int threads) {
    return detail::impl<B>::template training_bytes<L>(tokens, threads);
}

/// y = the layer's output for the tokens of `in`; with options.accumulate it is added to y.
///
/// Shapes:  in.x [T, H], y [T, H]; T may be 0, which writes nothing.
/// Throws:  argument_error for views that do not fit, overlap, are null or misaligned, ids outside the experts, more
///          tokens than were reserved; std::bad_alloc if the workspace must grow and cannot. y is untouched then.
/// Bits:    the same for any number of threads, and (routers without capacity that look at one token at a time) for any
///          split of the batch.
template <layer_weights W>
void forward(context<typename W::backend>& ctx, const W& w,
             const std::type_identity_t<batch<typename W::layer_type, typename W::backend>>& in, output_of<W> y,
             const options<typename W::layer_type>& o = {}) {
    detail::check_forward(ctx, w, in, y, o);
    if (in.x.extent(0) == 0) return;
    detail::impl<typename W::backend>::forward(ctx, w, in, y, nullptr, o);
}

/// The same, keeping on the tape what backward needs.
///
/// Throws:  also argument_error when the tape has no room for the tokens.
template <layer_weights W>
void forward(context<typename W::backend>& ctx, const W& w,
             const std::type_identity_t<batch<typename W::layer_type, typename W::backend>>& in, output_of<W> y,
             tape<typename W::layer_type, typename W::backend>& saved, const options<typename W::layer_type>& o = {}) {
    detail::check_forward(ctx, w, in, y, o);
    saved.require_room(in.x.extent(0));
    // The last thing that can fail, so that the tape still holds the previous call if it does.
    ctx.reserve_bytes(
        forward_workspace_bytes<typename W::layer_type, typename W::backend>(in.x.extent(0), ctx.threads()));
    saved.set_tokens(in.x.extent(0));
    if (in.x.extent(0) == 0) return;
    detail::impl<typename W::backend>::forward(ctx, w, in, y, &saved, o);
}

/// The short form: only tokens, nothing else known of them.
template <layer_weights W>
void forward(context<typename W::backend>& ctx, const W& w, input_of<W> x, output_of<W> y,
             const options<typename W::layer_type>& o = {}) {
    // Without a batch, which takes longer to fill than the checks of such a call.
    if constexpr (detail::has_short_calls<W>)
        if (!o.training && detail::is_plain_call(w, x, y, o))
            return detail::impl<typename W::backend>::forward_token(ctx, w, x.data(), y.data(), o);
    forward(ctx, w, batch<typename W::layer_type, typename W::backend>{.x = x}, y, o);
}

/// What context::reserve<L> calls.
template <layer_type L, backend B>
void reserve_for(context<B>& ctx, std::type_identity<L>, index_t most_tokens, bool training) {
    require(most_tokens >= 0 && most_tokens <= gatefold::most_tokens(L::c), "context::reserve", "most_tokens",
            detail::counted("at most ", gatefold::most_tokens(L::c), " tokens"), most_tokens);
    ctx.reserve_bytes(training ? training_workspace_bytes<L, B>(most_tokens, ctx.threads())
                               : forward_workspace_bytes<L, B>(most_tokens, ctx.threads()));
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
