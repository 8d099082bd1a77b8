// Where the memory behind a pointer is: what a caller passes as device memory, as pinned or as host memory, is asked.
#pragma once

#include <string>

#include <cuda_runtime_api.h>

#include <gatefold/cuda/device/status.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

inline cudaPointerAttributes attributes_of(const void* p) {
    cudaPointerAttributes found{};
    if (cudaPointerGetAttributes(&found, p) != cudaSuccess) {
        cudaGetLastError();
        return {};
    }
    return found;
}

/// Memory that a device can read: a host pointer in a device view would only fail later, and elsewhere.
inline cudaPointerAttributes check_any_device_pointer(const char* function, const char* argument, const void* p) {
    const cudaPointerAttributes found = attributes_of(p);
    require(found.type == cudaMemoryTypeManaged || found.type == cudaMemoryTypeDevice, function, argument,
            "device memory", "host memory");
    return found;
}

/// The same, of one device.
inline void check_device_pointer(const char* function, const char* argument, const void* p, int device) {
    const cudaPointerAttributes found = check_any_device_pointer(function, argument, p);
    require(found.type == cudaMemoryTypeManaged || found.device == device, function, argument,
            "memory of device " + std::to_string(device), found.device);
}

/// Memory that the host can read.
inline void check_host_pointer(const char* function, const char* argument, const void* p) {
    require(attributes_of(p).type != cudaMemoryTypeDevice, function, argument, "host memory", "device memory");
}

/// Host memory that a copy can read while the host goes on.
inline void check_pinned_pointer(const char* function, const char* argument, const void* p) {
    const cudaMemoryType type = attributes_of(p).type;
    require(type == cudaMemoryTypeHost || type == cudaMemoryTypeManaged, function, argument,
            "pinned host memory, as make_pinned and pinned_allocator give",
            type == cudaMemoryTypeDevice ? "device memory" : "pageable host memory");
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
