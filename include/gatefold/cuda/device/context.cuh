// What a call on CUDA needs besides its arguments: a stream, device memory for its intermediate results, counters.
//
//     context<cuda> ctx(stream);  ctx.reserve<L>(4096, false);  forward(ctx, w, x, y);   no allocation from here on
//
// One context serves one stream: the workspace of a call is that of the next one, in stream order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include <cuda_runtime_api.h>

#include <gatefold/core/context.hpp>
#include <gatefold/cuda/device/pointer.cuh>
#include <gatefold/cuda/device/status.cuh>

namespace gatefold::inline v0 {
namespace detail {

/// The device of an allocator that names one in its state, else -1: the current device.
inline int device_of(const void* self) { return static_cast<int>(reinterpret_cast<std::intptr_t>(self)) - 1; }

inline void* device_allocate(void* self, std::size_t bytes, std::size_t) {
    const int device = device_of(self);
    int before = device;
    if (device >= 0 && cudaGetDevice(&before) == cudaSuccess && before != device) cudaSetDevice(device);
    void* memory = nullptr;
    const bool done = cudaMalloc(&memory, bytes) == cudaSuccess;
    if (!done) cudaGetLastError();
    if (before != device) cudaSetDevice(before);
    return done ? memory : nullptr;
}
inline void device_release(void*, void* memory, std::size_t) { cudaFree(memory); }
inline void* pinned_allocate(void*, std::size_t bytes, std::size_t) {
    void* memory = nullptr;
    if (cudaMallocHost(&memory, bytes) == cudaSuccess) return memory;
    cudaGetLastError();
    return nullptr;
}
inline void pinned_release(void*, void* memory, std::size_t) { cudaFreeHost(memory); }

/// What kernels leave for the host and for the next kernel, at the front of the workspace; all zero between calls but
/// for the report.
struct device_control {
    /// Groups of tokens whose blocks count their arrivals in one launch.
    static constexpr int groups = 16384;
    unsigned long long nan_logits, infinite_logits, undecided, dropped, tokens, unused[3];
    unsigned arrived_groups, unused_words[15];
    unsigned arrived[groups];
};
static_assert(sizeof(device_control) % memory_alignment == 0);

}  // namespace detail

/// Device memory from cudaMalloc: of the current device, or of that of the context it is given to.
inline constexpr allocator device_allocator{nullptr, &detail::device_allocate, &detail::device_release};
/// Host memory that copies to and from the device overlap with: context<cpu>({.memory = pinned_allocator}).
inline constexpr allocator pinned_allocator{nullptr, &detail::pinned_allocate, &detail::pinned_release};

/// When a call says that a kernel of its own went wrong on the device (what cannot be launched throws at once always).
enum class kernel_errors {
    deferred,  ///< whatever notices it first throws: synchronize, report, a copy, a later call; calls return at once
    immediate  ///< the call waits for its kernels and throws itself, to find the culprit; not while a graph is captured
};

/// How a context on CUDA is made.
struct cuda_context_options {
    cudaStream_t stream = nullptr;                   ///< where everything runs; nullptr: the legacy default stream
    int device = -1;                                 ///< -1: the current one
    allocator memory = device_allocator;             ///< where workspace and tensors come from: device memory
    kernel_errors errors = kernel_errors::deferred;  ///< who reports what kernels do wrong
};

/// A CUDA device: a stream, an allocator of device memory, one block of workspace that only grows. Move-only; a context
/// that was moved from refuses every call.
template <>
class context<cuda> {
public:
    /// Throws: cuda_error where there is no such device, argument_error where stream or memory belong elsewhere,
    ///         std::bad_alloc.
    GATEFOLD_INLINE explicit context(const cuda_context_options& options = {}) : options_(options) {
        if (options_.device < 0) detail::check(cudaGetDevice(&options_.device), "context<cuda>");
        if (options_.memory.allocate == &detail::device_allocate && !options_.memory.self)
            options_.memory.self = reinterpret_cast<void*>(static_cast<std::intptr_t>(options_.device) + 1);
        const detail::device_scope scope(options_.device);
        detail::check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, options_.device),
                      "context<cuda>");
        int major = 0;
        detail::check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, options_.device),
                      "context<cuda>");
        detail::check(cudaDeviceGetAttribute(&shared_bytes_, cudaDevAttrMaxSharedMemoryPerBlockOptin, options_.device),
                      "context<cuda>");
        require(major >= 8, "context<cuda>", "device", "compute capability 8.0 or newer", major);
        int stream_device = options_.device;
        if (options_.stream)
            detail::check(cudaStreamGetDevice(options_.stream, &stream_device), "context<cuda>: stream");
        require(stream_device == options_.device, "context<cuda>", "stream",
                "a stream of device " + std::to_string(options_.device), stream_device);
        grow(sizeof(detail::device_control));
    }
    GATEFOLD_INLINE explicit context(cudaStream_t stream) : context(cuda_context_options{.stream = stream}) {}

    GATEFOLD_INLINE cudaStream_t stream() const { return options_.stream; }
    GATEFOLD_INLINE int device() const { return options_.device; }
    GATEFOLD_INLINE int multiprocessors() const { return multiprocessors_; }
    /// Shared memory that a block can be given.
    GATEFOLD_INLINE int shared_bytes() const { return shared_bytes_; }
    GATEFOLD_INLINE int threads() const { return 1; }
    GATEFOLD_INLINE const allocator& memory() const { return options_.memory; }

    /// Whether what is enqueued goes into a graph.
    GATEFOLD_INLINE bool is_captured() const { return is_captured("is_captured"); }

    /// Waits until everything in the stream is done.
    ///
    /// Throws: cuda_error for what went wrong in it, argument_error while the stream is captured (the capture goes on).
    GATEFOLD_INLINE void synchronize() const {
        const detail::device_scope scope(options_.device);  // whose default stream is meant, if it is one
        wait("synchronize");
    }
    /// What every call ends with: with kernel_errors::immediate it waits, outside a capture.
    GATEFOLD_INLINE void end_call(const char* function) const {
        if (options_.errors == kernel_errors::immediate && !is_captured(function)) wait(function);
    }

    /// Counts of unusual input; waits for the stream.
    ///
    /// Throws: as synchronize does.
    GATEFOLD_INLINE routing_report report() const {
        const detail::device_scope scope(options_.device);
        require_memory("report");
        require_free_stream("report");
        detail::device_control found;
        constexpr std::size_t counters = offsetof(detail::device_control, arrived_groups);
        detail::check(cudaMemcpyAsync(&found, workspace_.data(), counters, cudaMemcpyDeviceToHost, options_.stream),
                      "report");
        wait("report");
        return {static_cast<index_t>(found.tokens), static_cast<index_t>(found.nan_logits),
                static_cast<index_t>(found.infinite_logits), static_cast<index_t>(found.undecided),
                static_cast<index_t>(found.dropped)};
    }
    /// Sets the counts to zero in the order of the stream; captured in a graph, at each launch of it.
    GATEFOLD_INLINE void clear_report() {
        const detail::device_scope scope(options_.device);
        require_memory("clear_report");
        detail::check(
            cudaMemsetAsync(workspace_.data(), 0, offsetof(detail::device_control, arrived_groups), options_.stream),
            "clear_report");
    }

    /// Makes the workspace hold at least `bytes`; afterwards calls that need no more allocate nothing.
    ///
    /// Throws: argument_error where the workspace is fixed or the stream is being captured.
    GATEFOLD_INLINE void reserve_bytes(std::size_t bytes) {
        require_memory("context::workspace");
        if (bytes <= workspace_bytes()) return;
        require(!fixed_, "context::workspace", "bytes", "at most what was reserved", bytes);
        require(!is_captured("context::workspace"), "context::workspace", "bytes",
                "memory reserved before the capture begins: call reserve<L>(most_tokens)", bytes);
        grow(sizeof(detail::device_control) + bytes);
    }
    /// Refuses to let the workspace grow: a call that needs more throws instead of allocating.
    GATEFOLD_INLINE void fix_workspace(bool fixed = true) { fixed_ = fixed; }
    GATEFOLD_INLINE std::size_t workspace_bytes() const {
        return workspace_.data() ? workspace_.bytes() - sizeof(detail::device_control) : 0;
    }

    /// Memory for one call, valid until the next in stream order; throws as reserve_bytes does.
    GATEFOLD_INLINE std::byte* workspace(std::size_t bytes) {
        reserve_bytes(bytes);
        return workspace_.data() + sizeof(detail::device_control);
    }
    GATEFOLD_INLINE detail::device_control* control() const {
        return reinterpret_cast<detail::device_control*>(workspace_.data());
    }

    /// Makes room for calls of layer L over at most `most_tokens` tokens; longer calls throw from then on.
    template <class L>
    GATEFOLD_INLINE void reserve(index_t most_tokens, bool training = false) {
        reserve_for(*this, std::type_identity<L>{}, most_tokens, training);
        if (reserved_tokens_ == 0 || most_tokens < reserved_tokens_) reserved_tokens_ = most_tokens;
    }
    /// The number of tokens that was reserved for; 0: no promise was asked for.
    GATEFOLD_INLINE index_t reserved_tokens() const { return reserved_tokens_; }

private:
    GATEFOLD_INLINE bool is_captured(const char* function) const {
        cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
        detail::check(cudaStreamIsCapturing(options_.stream, &capture), function);
        return capture != cudaStreamCaptureStatusNone;
    }
    GATEFOLD_INLINE void require_memory(const char* function) const {
        require(workspace_.data() != nullptr, function, "ctx", "a context", "one that was moved from");
    }
    // CUDA would not only refuse to wait, it would also end the capture.
    GATEFOLD_INLINE void require_free_stream(const char* function) const {
        require(!is_captured(function), function, "stream", "a stream that is not being captured", "one that is");
    }
    GATEFOLD_INLINE void wait(const char* function) const {
        require_free_stream(function);
        detail::check(cudaStreamSynchronize(options_.stream), function);
    }
    // The stream may still use the old block; cudaFree waits for it.
    GATEFOLD_INLINE void grow(std::size_t bytes) {
        const detail::device_scope scope(options_.device);
        buffer<std::byte> larger(static_cast<index_t>(bytes), options_.memory);
        detail::on_cuda::check_device_pointer("context<cuda>", "memory", larger.data(), options_.device);
        if (workspace_.data())
            detail::check(cudaMemcpyAsync(larger.data(), workspace_.data(), sizeof(detail::device_control),
                                          cudaMemcpyDeviceToDevice, options_.stream),
                          "context::workspace");
        else
            detail::check(cudaMemsetAsync(larger.data(), 0, sizeof(detail::device_control), options_.stream),
                          "context::workspace");
        wait("context::workspace");
        workspace_ = std::move(larger);
    }

    cuda_context_options options_;
    buffer<std::byte> workspace_;
    index_t reserved_tokens_ = 0;
    int multiprocessors_ = 0, shared_bytes_ = 0;
    bool fixed_ = false;
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// An error that nobody asked for yet would be taken for that of the next launch.
inline void check_nothing_failed(const char* function) {
    if (const cudaError_t status = cudaPeekAtLastError(); status != cudaSuccess) [[unlikely]]
        check(status, (std::string(function) + ": an earlier CUDA call failed").c_str());
}

/// One call of a context: its device is the current one, and earlier errors have been thrown.
class call_scope {
public:
    call_scope(const context<cuda>& ctx, const char* function) : device_(ctx.device()) {
        check_nothing_failed(function);
    }
    call_scope(const call_scope&) = delete;
    call_scope& operator=(const call_scope&) = delete;

private:
    device_scope device_;
};

/// Throws what the last launch was refused for.
inline void check_kernel(const char* name) { check(cudaGetLastError(), name); }

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
