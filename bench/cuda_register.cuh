// The benchmarks of one configuration on a CUDA device: register_on_device<config{...}>("name").
#pragma once

#include "cuda_cuts.cuh"

namespace bench {

/// The FFN that costs a token as much as its experts do.
constexpr config dense_twin_on_device(const config& c) {
    return {.hidden = c.hidden, .ffn = c.ffn * c.top_k, .act = c.act, .limit = c.limit, .bias = c.bias};
}

inline constexpr index_t device_token_counts[] = {1, 4, 16, 64, 256, 1024, 8192};

/// Registers every stage of a layer of this configuration. Neighbours use the same data, so that little is rebuilt.
template <config C, class T>
void register_type_on_device(const char* model) {
    using own = device_stages<layer<C, T>>;
    using dense = device_stages<layer<dense_twin_on_device(C), T>>;
    own::names(model);
    dense::names(model);
    for (const index_t tokens : device_token_counts) {
        own::add_stage("router", tokens, &own::router);
        own::add_stage("plan", tokens, &own::plan);
        if constexpr (sizeof(T) == 2) {  // integers: the type of the tokens changes nothing
            own::add_stage("radix_sort_plan", tokens, &own::template sorted_plan<plan_by::radix_sort_t>);
            own::add_stage("thrust_sort_plan", tokens, &own::template sorted_plan<plan_by::thrust_sort_t>);
            own::add_stage("cuts", tokens, &device_cuts<layer<C, T>>::run);
        }
        own::add_stage("experts", tokens, &own::experts);
        own::add_stage("combine", tokens, &own::combine);
        own::add_stage("layer_forward", tokens, &own::forward);
    }
    for (const index_t tokens : device_token_counts) {
        dense::add_stage("dense_ffn", tokens, &dense::forward);
        if constexpr (sizeof(T) == 2)
            dense::add_stage("dense_cuts", tokens, &device_cuts<layer<dense_twin_on_device(C), T>>::run);
    }
}

template <config C>
void register_on_device(const char* model) {
    register_type_on_device<C, float>(model);
    register_type_on_device<C, bf16>(model);
}

}  // namespace bench
