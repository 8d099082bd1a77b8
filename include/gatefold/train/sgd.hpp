// Stochastic gradient descent with momentum.
#pragma once

#include <gatefold/ops/rows.hpp>
#include <gatefold/train/optimiser_state.hpp>

namespace gatefold::inline v0 {

/// Numbers of a run; the rate of each step is an argument of the step.
struct sgd_options {
    double momentum = 0.9;
    bool nesterov = false;       ///< step along gradient + momentum · velocity
    double weight_decay = 0;     ///< added to the gradient as weight_decay · weight; not on norms, biases and vectors
    double gradient_factor = 1;  ///< what gradients are multiplied by first: clip_factor(norm, most)
};

/// State of momentum for the weights W.
template <class W>
struct sgd_state {
    gradients_of<W> velocity;
    masters_of<W> masters;
    index_t steps = 0;  ///< steps taken
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// A fresh state: velocity zero, masters the weights.
template <class W>
sgd_state<W> make_sgd_state(context<cpu>& ctx, const W& w) {
    sgd_state<W> state;
    detail::allocate_slots(state.velocity, ctx);
    state.masters = detail::make_masters(ctx, w);
    return state;
}

/// One step on every parameter of a layer or a decoder: u = momentum u + g, w = w - rate u, where
/// g = gradient_factor · gradient + weight_decay · w.
///
/// Bits: the same for any number of threads.
template <class W>
void step(context<cpu>& ctx, W& w, const gradients_of<W>& g, sgd_state<W>& state, double rate,
          const sgd_options& o = {}) {
    namespace simd = detail::on_cpu;
    ++state.steps;
    for_each_parameter(
        [&](const char* name, auto& weight, const auto& gradient, auto& velocity, auto& master) {
            using slot_type = std::remove_reference_t<decltype(weight)>;
            using A = accumulate_t<typename slot_type::value_type>;
            const auto number_of = [](double x) { return simd::broadcast(static_cast<A>(x)); };
            const auto factor = number_of(o.gradient_factor), momentum = number_of(o.momentum), down = number_of(-rate),
                       decay = number_of(is_undecayed<slot_type>(name) ? 0 : o.weight_decay);
            constexpr index_t block = 1024;
            simd::share_out(ctx, ceil_div(weight.size(), block), 6 * block, [&](index_t from, index_t to) {
                const auto run = [&](auto* kept) {
                    const index_t end = to * block < weight.size() ? to * block : weight.size();
                    for (index_t i = from * block; i < end; i += simd::lanes<A>) {
                        const index_t n = end - i;
                        auto x = simd::load_first<A>(kept + i, n);
                        const auto d =
                            simd::fma(decay, x, simd::mul(factor, simd::load_first<A>(gradient.data() + i, n)));
                        const auto u = simd::fma(momentum, simd::load_first<A>(velocity.data() + i, n), d);
                        x = simd::fma(down, o.nesterov ? simd::fma(momentum, u, d) : u, x);
                        simd::store_first(velocity.data() + i, u, n);
                        simd::store_first(kept + i, x, n);
                        if constexpr (!std::is_same_v<decltype(kept), typename slot_type::value_type*>)
                            simd::store_first(weight.data() + i, x, n);
                    }
                };
                if constexpr (std::is_same_v<std::remove_reference_t<decltype(master)>, no_master>)
                    run(weight.data());
                else
                    run(master.data());
            });
        },
        w, g, state.velocity, state.masters);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
