// The layer's backward pass: checks, then the wing of the backend.
#pragma once

#include <gatefold/moe/check.hpp>
#include <gatefold/moe/seam.hpp>
#include <gatefold/moe/tape.hpp>

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Gradients of the layer's parameters and of its input, from the gradient `dy` of its output and the tape of the
/// forward call over the same tokens, weights and options.
///
/// Losses add to saved.logit_gradients() between the two calls; afterwards it holds the gradient of the logits.
/// Shapes:  in.x, dy, dx [T, H]. dx is overwritten (in.router_x_gradients too: what the router reads has a gradient
///          of its own where it is not x); g is overwritten, or added to with options.accumulate.
/// Throws:  argument_error for views that do not fit, overlap, are null or misaligned, a tape that holds other tokens;
///          std::bad_alloc if the workspace must grow and cannot. dx and g are untouched then.
/// Bits:    the same for any number of threads. Experts without rows get gradients of exactly zero.
template <layer_weights W>
void backward(context<typename W::backend>& ctx, const W& w,
              const std::type_identity_t<batch<typename W::layer_type, typename W::backend>>& in,
              tape<typename W::layer_type, typename W::backend>& saved, input_of<W> dy, output_of<W> dx,
              gradients<typename W::layer_type, typename W::backend>& g,
              const options<typename W::layer_type>& o = {}) {
    using L = typename W::layer_type;
    const index_t tokens = in.x.extent(0);
    detail::check_batch("backward", ctx, in, !L::is_dense);
    detail::check_view("backward", "dy", dy, tokens);
    detail::check_view("backward", "dx", dx, tokens);
    detail::check_disjoint("backward", "dx", dx, "x", in.x);
    detail::check_disjoint("backward", "dx", dx, "dy", dy);
    if (in.router_x_gradients.data()) {
        require(in.router_x.data() != nullptr || L::is_dense, "backward", "router_x_gradients", "none without router_x",
                "a view");
        detail::check_view("backward", "router_x_gradients", in.router_x_gradients, tokens);
        detail::check_disjoint("backward", "router_x_gradients", in.router_x_gradients, "dx", dx);
        detail::check_disjoint("backward", "router_x_gradients", in.router_x_gradients, "dy", dy);
        detail::check_disjoint("backward", "router_x_gradients", in.router_x_gradients, "router_x", in.router_x);
    }
    if (in.router_x.data()) detail::check_disjoint("backward", "dx", dx, "router_x", in.router_x);
    detail::check_weights("backward", w);
    detail::check_weights("backward", g);
    detail::check_dropout("backward", o);
    if (!(saved.tokens() == tokens)) [[unlikely]]
        detail::reject("backward", "tape", detail::counted("a tape of the same ", tokens, " tokens"), saved.tokens());
    detail::impl<typename W::backend>::backward(ctx, w, in, saved, dy, dx, g, o);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
