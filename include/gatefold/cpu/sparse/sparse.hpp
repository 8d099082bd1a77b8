// Block-sparse experts in the expert stage: cpu/experts/experts.hpp's run_stage with panels that are stored in runs.
//
// A matrix unit multiplies calls that bring some expert more rows than the kernels for few rows take; those, which
// memory limits, stay with the vectors of the same order, where activations that are zero spare weights too.
#pragma once

#include <gatefold/cpu/experts/experts.hpp>
#include <gatefold/cpu/sparse/sweep.hpp>
#include <gatefold/cpu/sparse/tiles.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Found from run_stage by its arguments.
template <class Form, class T, bool Skips, class Done>
GATEFOLD_INLINE void sweep_with(const typename Form::tiles_type& tiles, const typename Form::row_type* rows,
                                index_t steps, const sparse_source<T, Skips>& source, index_t p0, index_t p1,
                                std::byte* scratch, const Done& done) {
    if constexpr (Form::by_tiles) {
        typename Form::unit_type unit;
        sweep_sparse_tiles(unit, tiles, rows, steps, source, p0, p1, scratch, done);
    } else {
        sweep_sparse<Form, Skips>(tiles, rows, steps, source, p0, p1, scratch, done);
    }
}

template <class T, bool Skips>
GATEFOLD_INLINE void fetch_beginning(const sparse_source<T, Skips>& source) {
    prefetch<false>(source.data);
}

/// Zero is a value of its own for these: the second projection looks for it.
constexpr bool yields_zeros(activation a) { return a == activation::relu || a == activation::relu_squared; }

/// What run_stage asks for panels.
template <class T, bool Skips>
struct sparse_panels {
    const sparse_blocks* experts;
    const T *up_bias, *down_bias;

    /// The panels of projection j of expert e; `then` is the expert that is read after it.
    template <bool S>
    GATEFOLD_INLINE sparse_source<T, S> source(index_t e, index_t then, int j) const {
        const sparse_blocks &one = experts[e], &next = experts[then];
        return {reinterpret_cast<const T*>(one.matrices.data()), one.runs.data(),
                one.panels.data() + one.summary[j].panel, &one.summary[j],
                reinterpret_cast<const T*>(next.matrices.data()) + next.summary[j].begin};
    }
    GATEFOLD_INLINE sparse_source<T, false> up_panels(index_t e, index_t then, index_t) const {
        return source<false>(e, then, 0);
    }
    GATEFOLD_INLINE sparse_source<T, Skips> down_panels(index_t e, index_t then, index_t) const {
        return source<Skips>(e, then, 1);
    }
};

/// The matrices of sparse<L> from one expert on. run_experts hands over to run(), whose panels run_stage reads.
template <class T>
struct sparse_weights {
    static constexpr bool own_stage = true;
    const sparse_blocks* experts;
    const T *up_bias, *down_bias;

    template <class E, class Context, class X, class Target, class Drop>
    void run(Context& ctx, std::byte* scratch, const expert_input<X>& in, typename E::sum_type limit, order sums,
             const kept_activations<T>& keep, const Target& target, const Drop& drop,
             const round_into<T>& result) const {
        const sparse_panels<T, yields_zeros(E::act)> panels{experts, up_bias, down_bias};
        if constexpr (std::is_same_v<T, bf16>) {
            if (resolve(sums) == order::dot)
                return run_stage<dot_form, E::act, T, E::bias>(ctx, scratch, shape_of<E>, in, panels, limit, keep,
                                                               target, drop, result);
        }
#if GATEFOLD_AMX
        if constexpr (std::is_same_v<T, bf16>) {
            index_t most = 0;
            for (int e = 0; e < in.groups.experts; ++e) most = (std::max)(most, in.groups.count(e));
            if (most > sparse_rows<portable_form> && may_use_tiles())
                return run_stage<tile_form<machine_tiles>, E::act, T, E::bias>(ctx, scratch, shape_of<E>, in, panels,
                                                                               limit, keep, target, drop, result);
        }
#endif
        run_stage<form_for<T, order::portable>, E::act, T, E::bias>(ctx, scratch, shape_of<E>, in, panels, limit, keep,
                                                                    target, drop, result);
    }
};

template <layer_type L>
struct own_form<sparse<L>> {
    static constexpr bool exists = true;
    using T = typename L::value_type;

    /// From expert `e` on.
    GATEFOLD_INLINE static sparse_weights<T> weights(const sparse<L>& s, int e, const T* up_bias, const T* down_bias) {
        return {s.experts.data() + e, up_bias, down_bias};
    }
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
