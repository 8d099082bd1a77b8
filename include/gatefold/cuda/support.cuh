// What a call on CUDA must bring: settings that have kernels, and memory that the device can read.
#pragma once

#include <string>

#include <gatefold/cuda/context.cuh>
#include <gatefold/moe/layer.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// Refuses what this wing has no kernel for, in a sentence.
template <layer_type L>
constexpr bool check_supported() {
    static_assert(L::c.router.select != selection::expert_choice,
                  "gatefold: expert choice is not there on CUDA; run on the CPU");
    return true;
}

/// Memory that the device can read: a host pointer in a device view would only fail later, and elsewhere.
inline void check_device_pointer(const char* function, const char* argument, const void* p, int device) {
    cudaPointerAttributes found{};
    const cudaError_t status = cudaPointerGetAttributes(&found, p);
    if (status != cudaSuccess) cudaGetLastError();
    const bool reachable =
        status == cudaSuccess && (found.type == cudaMemoryTypeManaged || found.type == cudaMemoryTypeDevice);
    require(reachable, function, argument, "device memory", "host memory");
    require(found.type == cudaMemoryTypeManaged || found.device == device, function, argument,
            "memory of device " + std::to_string(device), found.device);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
