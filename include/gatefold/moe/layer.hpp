// A layer as a type: the constants that its kernels are compiled for. It holds no state and no code.
//
//     layer<config, T> ──> weights<L>, packed<L>, gradients<L>, tape<L>      (moe/weights.hpp, moe/tape.hpp)
//                     └──> forward, backward, route, make_plan, ...          (moe/forward.hpp, moe/backward.hpp)
#pragma once

#include <concepts>
#include <type_traits>

#include <gatefold/config.hpp>
#include <gatefold/core/dtype.hpp>
#include <gatefold/moe/accounting.hpp>
#include <gatefold/moe/routers.hpp>

namespace gatefold::inline v0 {

/// The layer that a configuration names. T is the storage type of experts, x and y: float, double, bf16 or f16. Sums
/// are single precision (double for double).
template <config C, class T>
    requires(scalar<T>)
struct layer {
    static_assert(detail::checked<C>::value);

    static constexpr config c = C;
    using value_type = T;
    using accumulate_type = accumulate_t<T>;
    using router_type = std::conditional_t<C.router.weights == precision::storage, T, accumulate_t<T>>;

    static constexpr int hidden = C.hidden;
    static constexpr int ffn = C.ffn;
    static constexpr int experts = C.experts;
    /// Experts that this process holds; a shard of an expert-parallel layer has fewer than `experts`.
    static constexpr int local_experts = C.experts;
    static constexpr int top_k = C.top_k;
    /// Experts that the router chooses among, free ones included.
    static constexpr int choices = gatefold::choices(C);
    /// Places for chosen experts per token.
    static constexpr int slots = gatefold::slots(C);
    /// Width of an expert's input and output.
    static constexpr int width = gatefold::expert_width(C);
    static constexpr int gate_up_rows = (gatefold::is_gated(C.act) ? 2 : 1) * C.ffn;
    static constexpr int shared_ffn = C.shared.ffn;
    static constexpr int shared_gate_up_rows = (gatefold::is_gated(C.shared.act) ? 2 : 1) * C.shared.ffn;
    static constexpr bool is_dense = gatefold::is_dense(C);
    static constexpr bool is_gated = gatefold::is_gated(C.act);

    static constexpr index_t parameters = gatefold::parameters(C);
    static constexpr index_t active_parameters = gatefold::active_parameters(C);
    static constexpr index_t flops = gatefold::flops(C);
};

/// A type made by layer<config, T>, or derived from one (a short name for a long type).
template <class L>
concept layer_type = requires {
    typename L::value_type;
    typename L::accumulate_type;
    { L::c.hidden } -> std::convertible_to<int>;
};

}  // namespace gatefold::inline v0
