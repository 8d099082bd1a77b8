// Whether a pointer that a caller passes as device memory is that.
#pragma once

#include <string>

#include <cuda_runtime_api.h>

#include <gatefold/cuda/status.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

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
