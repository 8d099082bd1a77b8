// AdamW: moments of gradients, decay apart from them (Loshchilov and Hutter, 1711.05101).
//
//     weights, gradients, moments, masters ── one pass over every parameter ──> weights, moments, masters
#pragma once

#include <cmath>

#include <gatefold/cpu/simd/around.hpp>
#include <gatefold/cpu/simd/number.hpp>
#include <gatefold/ops/rows.hpp>
#include <gatefold/train/optimiser_state.hpp>

namespace gatefold::inline v0 {

/// Numbers of a run; the rate of each step is an argument of the step.
struct adamw_options {
    double first = 0.9;          ///< how much of the old mean of gradients is kept
    double second = 0.95;        ///< the same for their squares
    double epsilon = 1e-8;       ///< added to the root of the second moment
    double weight_decay = 0.1;   ///< times rate times weight; not on norms, biases and vectors
    double gradient_factor = 1;  ///< what gradients are multiplied by first: clip_factor(norm, most)
};

/// State of AdamW for the weights W.
template <class W>
struct adamw_state {
    gradients_of<W> first, second;
    masters_of<W> masters;
    index_t steps = 0;  ///< steps taken
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// A fresh state: moments zero, masters the weights.
template <class W>
adamw_state<W> make_adamw_state(context<cpu>& ctx, const W& w) {
    adamw_state<W> state;
    detail::allocate_slots(state.first, ctx);
    detail::allocate_slots(state.second, ctx);
    state.masters = detail::make_masters(ctx, w);
    return state;
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// The numbers of one step that every element shares.
template <class A>
struct adamw_step {
    vec<A> factor, keep_first, take_first, keep_second, take_second, shrink, epsilon, correct_second, size;

    adamw_step(const adamw_options& o, double rate, index_t step, bool decays)
        : factor(number_of(o.gradient_factor)),
          keep_first(number_of(o.first)),
          take_first(number_of(1 - o.first)),
          keep_second(number_of(o.second)),
          take_second(number_of(1 - o.second)),
          shrink(number_of(decays ? 1 - rate * o.weight_decay : 1)),
          epsilon(number_of(o.epsilon)),
          correct_second(number_of(1 / std::sqrt(1 - std::pow(o.second, static_cast<double>(step))))),
          size(number_of(-rate / (1 - std::pow(o.first, static_cast<double>(step))))) {}

    static vec<A> number_of(double x) { return broadcast(static_cast<A>(x)); }

    /// w, m and v of some elements after the step.
    GATEFOLD_INLINE void operator()(vec<A>& w, vec<A>& m, vec<A>& v, vec<A> g) const {
        g = mul(g, factor);
        m = fma(m, keep_first, mul(g, take_first));
        v = fma(v, keep_second, mul(mul(g, g), take_second));
        const vec<A> root = fma(number<vec<A>>::sqrt(v), correct_second, epsilon);
        w = fma(number<vec<A>>::divide(m, root), size, mul(w, shrink));
    }
};

/// Elements [begin, end) of one parameter; `master` is the weight itself where there is no other.
///
/// Around: moments and masters, aligned to a register, are written past the caches: a third less time where all come
/// from memory (bench adamw/olmoe).
template <bool Around, class A, class T, class M>
void adamw_range(const adamw_step<A>& step, index_t begin, index_t end, T* weight, M* master, const A* gradient,
                 A* first, A* second) {
    constexpr int width = lanes<A>, ahead = 2048 / static_cast<int>(sizeof(A));
    index_t i = begin;
    for (; i + width <= end; i += width) {
        prefetch<true>(master + i + ahead);
        prefetch<true>(gradient + i + ahead);
        prefetch<true>(first + i + ahead);
        prefetch<true>(second + i + ahead);
        vec<A> w = load<A>(master + i), m = load<A>(first + i), v = load<A>(second + i);
        step(w, m, v, load<A>(gradient + i));
        const auto keep = [&](auto* to, vec<A> x) {
            if constexpr (Around)
                store_around(to + i, x);
            else
                store(to + i, x);
        };
        keep(first, m);
        keep(second, v);
        keep(master, w);
        if constexpr (!std::is_same_v<T, M>) store(weight + i, w);
    }
    if constexpr (Around) finish_stores_around();
    if (i < end) {
        const index_t n = end - i;
        vec<A> w = load_first<A>(master + i, n), m = load_first<A>(first + i, n), v = load_first<A>(second + i, n);
        step(w, m, v, load_first<A>(gradient + i, n));
        store_first(first + i, m, n);
        store_first(second + i, v, n);
        store_first(master + i, w, n);
        if constexpr (!std::is_same_v<T, M>) store_first(weight + i, w, n);
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// One step of AdamW on every parameter of a layer or a decoder.
///
/// With g = gradient_factor · gradient: m = first m + (1 - first) g, v = second v + (1 - second) g², and
/// w = (1 - rate · weight_decay) w - rate · m / (1 - first^n) / (√(v / (1 - second^n)) + epsilon) in step n = 1, 2, ….
/// Weights of two bytes follow their float masters, rounded once. Moments and masters that no cache would keep are
/// written past the caches.
/// Bits: the same for any number of threads.
template <class W>
void step(context<cpu>& ctx, W& w, const gradients_of<W>& g, adamw_state<W>& state, double rate,
          const adamw_options& o = {}) {
    namespace simd = detail::on_cpu;
    ++state.steps;
    std::size_t bytes = 0;  // that the step writes
    for_each_parameter(
        [&](const char*, const auto& slot) {
            using T = std::remove_pointer_t<decltype(slot.data())>;
            bytes += static_cast<std::size_t>(slot.size()) * (3 * sizeof(accumulate_t<std::remove_const_t<T>>));
        },
        std::as_const(w));
    const bool around = bytes > simd::kept_in_caches;
    for_each_parameter(
        [&](const char* name, auto& weight, const auto& gradient, auto& first, auto& second, auto& master) {
            using slot_type = std::remove_reference_t<decltype(weight)>;
            using T = typename slot_type::value_type;
            using A = accumulate_t<T>;
            const simd::adamw_step<A> numbers(o, rate, state.steps, !is_undecayed<slot_type>(name));
            constexpr index_t block = 1024;
            simd::share_out(ctx, ceil_div(weight.size(), block), 8 * block, [&](index_t from, index_t to) {
                const index_t end = to * block < weight.size() ? to * block : weight.size();
                const auto run = [&](auto* kept) {
                    const auto part = around && simd::is_aligned(kept) && simd::is_aligned(first.data()) &&
                                              simd::is_aligned(second.data())
                                          ? simd::adamw_range<true, A, T, A>
                                          : simd::adamw_range<false, A, T, A>;
                    part(numbers, from * block, end, weight.data(), kept, gradient.data(), first.data(), second.data());
                };
                if constexpr (std::is_same_v<std::remove_reference_t<decltype(master)>, no_master>)
                    run(weight.data());
                else
                    run(master.data());
            });
        },
        w, g, state.first, state.second, state.masters);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
