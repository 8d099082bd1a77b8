// What every call asks of its arguments before it enqueues anything: memory is where the types say it is.
#pragma once

#include <gatefold/cuda/device/pointer.cuh>
#include <gatefold/moe/call.hpp>
#include <gatefold/moe/packed.hpp>
#include <gatefold/moe/plan.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// Memory of a view that may be absent.
template <class T, int... E>
void check_device_memory(const char* function, const char* argument, const basic_view<cuda, T, E...>& v, int device) {
    if (v.data() && v.size() > 0) check_device_pointer(function, argument, v.data(), device);
}

template <layer_type L>
void check_device_batch(const char* function, const batch<L, cuda>& in, int device) {
    check_device_memory(function, "x", in.x, device);
    check_device_memory(function, "router_x", in.router_x, device);
    check_device_memory(function, "token_ids", in.token_ids, device);
    check_device_memory(function, "mask", in.mask, device);
    check_device_memory(function, "sequence_starts", in.sequence_starts, device);
    check_device_memory(function, "chosen", in.chosen, device);
    check_device_memory(function, "previous_logits", in.previous_logits, device);
}

template <layer_type L>
void check_device_routing(const char* function, const routing_view<L, cuda>& routing, int device) {
    check_device_memory(function, "ids", routing.ids, device);
    check_device_memory(function, "weights", routing.weights, device);
    check_device_memory(function, "logits", routing.logits, device);
}

inline void check_device_plan(const char* function, const plan_view<cuda>& plan, int device) {
    check_device_memory(function, "offsets", plan.offsets, device);
    check_device_memory(function, "rows", plan.rows, device);
    check_device_memory(function, "place", plan.place, device);
}

/// Parameters that are borrowed are asked for one by one; those that are owned came from one context, and the first
/// stands for all.
template <class W>
void check_device_weights(const char* function, const W& w, int device) {
    bool asked = false;
    const auto each = [&](const char* name, const auto& slot) {
        if constexpr (requires { slot.row_stride(); })
            check_device_memory(function, name, slot, device);
        else if (!asked && slot.size() > 0)
            check_device_pointer(function, name, slot.data(), device);
        asked = true;
    };
    for_each_parameter(each, w);
    if constexpr (is_packed<W>) check_device_pointer(function, "w", w.matrices.data(), device);
}

/// One expert to be packed into p.
template <layer_type L>
void check_pack(const char* function, const packed<L, cuda>& p, const typename L::value_type* gate_up,
                const typename L::value_type* down, int device) {
    check_device_pointer(function, "p", p.matrices.data(), device);
    check_device_pointer(function, "gate_up", gate_up, device);
    check_device_pointer(function, "down", down, device);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
