// What CUDA answers, as exceptions; and the device that a call works on.
#pragma once

#include <stdexcept>
#include <string>

#include <cuda_runtime_api.h>

#include <gatefold/core/error.hpp>
#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0 {

/// CUDA refused something; `what()` reads "gatefold::FUNCTION: CUDA's own words", `status()` is its number.
class cuda_error : public std::runtime_error {
public:
    cuda_error(const std::string& text, cudaError_t status) : std::runtime_error(text), status_(status) {}
    cudaError_t status() const { return status_; }

private:
    cudaError_t status_;
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

inline void check(cudaError_t status, const char* function) {
    if (status == cudaSuccess) [[likely]]
        return;
    cudaGetLastError();  // a refused call must not be found by the next one
    GATEFOLD_THROW(cuda_error("gatefold::" + std::string(function) + ": " + cudaGetErrorString(status), status));
}

/// Makes `device` the current one for its own lifetime.
class device_scope {
public:
    explicit device_scope(int device) {
        check(cudaGetDevice(&before_), "context");
        if (before_ != device) check(cudaSetDevice(device), "context");
        changed_ = before_ != device;
    }
    ~device_scope() {
        if (changed_) cudaSetDevice(before_);
    }
    device_scope(const device_scope&) = delete;
    device_scope& operator=(const device_scope&) = delete;

private:
    int before_ = 0;
    bool changed_ = false;
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER
