#include <algorithm>
#include <cstdint>

#include <gatefold/gatefold.hpp>

#include "cuda_probe.hpp"

namespace bench {
namespace {

using gatefold::detail::check;

__device__ __forceinline__ std::uint32_t scrambled(std::uint32_t x) {
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}
/// Two bf16 numbers of either sign between 1/2 and 2: zeros would draw less power than data does.
__device__ __forceinline__ std::uint32_t two_numbers(std::uint32_t from) {
    return (scrambled(from) & 0x80ff80ffu) | 0x3f003f00u;
}

constexpr int chains = 16;

__global__ void __launch_bounds__(256) multiply_add(int steps, float* out) {
    float sums[chains];
    const float factor = 0.999f + static_cast<float>(threadIdx.x) * 1e-9f;
    GATEFOLD_UNROLL
    for (int i = 0; i < chains; ++i) sums[i] = static_cast<float>(i);
    for (int s = 0; s < steps; ++s) {
        GATEFOLD_UNROLL
        for (int i = 0; i < chains; ++i) sums[i] = gatefold::fma(sums[i], factor, 1e-3f);
    }
    float all = 0;
    GATEFOLD_UNROLL
    for (int i = 0; i < chains; ++i) all += sums[i];
    if (all == 12345) *out = all;  // never, but the compiler cannot know
}

__global__ void __launch_bounds__(256) multiply_matrices(int steps, float* out) {
    float sums[8][4] = {};
    std::uint32_t a[2][4], b[4][2];
    GATEFOLD_UNROLL
    for (int i = 0; i < 8; ++i) a[i / 4][i % 4] = two_numbers(threadIdx.x * 16 + static_cast<unsigned>(i));
    GATEFOLD_UNROLL
    for (int i = 0; i < 8; ++i) b[i / 2][i % 2] = two_numbers(threadIdx.x * 16 + 8 + static_cast<unsigned>(i));
    for (int s = 0; s < steps; ++s) {
        GATEFOLD_UNROLL
        for (int i = 0; i < 8; ++i)
            gatefold::detail::on_cuda::multiply_add<gatefold::bf16>(sums[i], a[i / 4], b[i % 4][0], b[i % 4][1]);
    }
    float all = 0;
    GATEFOLD_UNROLL
    for (int i = 0; i < 32; ++i) all += sums[i / 4][i % 4];
    if (all == 12345) *out = all;
}

/// Products of warpgroups, 64 x 64 x 16; tells in out[1] that this build has them.
__global__ void __launch_bounds__(128) multiply_by_warpgroups(int steps, float* out) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    __shared__ __align__(128) std::uint32_t b[64 * 16 / 2];
    for (unsigned i = threadIdx.x; i < 64 * 16 / 2; i += 128) b[i] = two_numbers(i);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    float d[32] = {};
    std::uint32_t a[4];
    GATEFOLD_UNROLL
    for (int i = 0; i < 4; ++i) a[i] = two_numbers(threadIdx.x * 4 + static_cast<unsigned>(i));
    // Matrices of 8 x 16 bytes one after another: 128 bytes to the next along k, 256 to the next along n.
    const std::uint64_t at = (gatefold::detail::on_cuda::shared_address(b) & 0x3ffffu) >> 4;
    const std::uint64_t descriptor = at | std::uint64_t{128 >> 4} << 16 | std::uint64_t{256 >> 4} << 32;
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    for (int s = 0; s < steps; ++s) {
        asm volatile(
            "{ .reg .pred p; setp.eq.u32 p, 0, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
            "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,"
            "%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, {%32,%33,%34,%35}, %36, p, 1, 1, 0; "
            "}"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
              "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
              "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
              "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(descriptor));
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    }
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    float all = 0;
    GATEFOLD_UNROLL
    for (int i = 0; i < 32; ++i) all += d[i];
    if (all == 12345) *out = all;
    if (threadIdx.x == 0) out[1] = 1;
#endif
}

__global__ void __launch_bounds__(256) read_all(const uint4* from, std::int64_t n, float* out) {
    constexpr int together = 8;
    const std::int64_t stride = std::int64_t{gridDim.x} * 256;
    std::uint32_t all = 0;
    for (std::int64_t i = std::int64_t{blockIdx.x} * 256 + threadIdx.x; i < n; i += stride * together) {
        uint4 v[together];
        GATEFOLD_UNROLL
        for (int j = 0; j < together; ++j) v[j] = i + j * stride < n ? __ldcs(from + i + j * stride) : uint4{};
        GATEFOLD_UNROLL
        for (int j = 0; j < together; ++j) all ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
    }
    if (all == 0x12345678u) *out = 1;
}

struct stopwatch {
    cudaEvent_t begin = nullptr, end = nullptr;
    stopwatch() {
        check(cudaEventCreate(&begin), "probe");
        check(cudaEventCreate(&end), "probe");
    }
    ~stopwatch() {
        cudaEventDestroy(begin);
        cudaEventDestroy(end);
    }
    /// The shortest of five runs, after one that warms up.
    template <class Run>
    double seconds(Run&& run) {
        float best = 1e9f;
        for (int i = 0; i < 6; ++i) {
            check(cudaEventRecord(begin), "probe");
            run();
            check(cudaGetLastError(), "probe");
            check(cudaEventRecord(end), "probe");
            check(cudaEventSynchronize(end), "probe");
            float milliseconds = 0;
            check(cudaEventElapsedTime(&milliseconds, begin, end), "probe");
            if (i > 0) best = (std::min)(best, milliseconds);
        }
        return 1e-3 * static_cast<double>(best);
    }
};

device_rates measured() {
    device_rates r;
    stopwatch watch;
    int device = 0, multiprocessors = 0;
    check(cudaGetDevice(&device), "probe");
    check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "probe");
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "probe");
    const std::size_t bytes = (std::min)(std::size_t{1} << 31, free / 4) / 4096 * 4096;
    gatefold::buffer<std::byte> from(static_cast<gatefold::index_t>(bytes), gatefold::device_allocator);
    gatefold::buffer<std::byte> to(static_cast<gatefold::index_t>(bytes), gatefold::device_allocator);
    check(cudaMemset(from.data(), 0x3c, bytes), "probe");
    float* out = reinterpret_cast<float*>(to.data());
    check(cudaMemset(out, 0, 256), "probe");

    const auto blocks = static_cast<unsigned>(multiprocessors);
    const auto gflops = [](double operations, double seconds) { return 1e-9 * operations / seconds; };
    constexpr int steps = 20000;
    r.fma = gflops(2.0 * chains * steps * 256 * 8 * blocks,
                   watch.seconds([&] { multiply_add<<<8 * blocks, 256>>>(steps, out); }));
    r.mma_sync = gflops(2.0 * 16 * 8 * 16 * 8 * steps * 8 * 2 * blocks,
                        watch.seconds([&] { multiply_matrices<<<2 * blocks, 256>>>(steps, out); }));
    const double by_warpgroups = watch.seconds([&] { multiply_by_warpgroups<<<4 * blocks, 128>>>(steps, out); });
    float has = 0;
    check(cudaMemcpy(&has, out + 1, sizeof has, cudaMemcpyDeviceToHost), "probe");
    if (has > 0) r.wgmma = gflops(2.0 * 64 * 64 * 16 * steps * 4 * blocks, by_warpgroups);
    const auto size = static_cast<double>(bytes);
    r.read = 1e-9 * size / watch.seconds([&] {
        read_all<<<8 * blocks, 256>>>(reinterpret_cast<const uint4*>(from.data()),
                                      static_cast<std::int64_t>(bytes / 16), out);
    });
    r.copied = 1e-9 * 2 * size / watch.seconds([&] {
        check(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice), "probe");
    });
    return r;
}

}  // namespace

const device_rates& probed_device() {
    static const device_rates r = measured();
    return r;
}

rates device_ceilings(unit arithmetic) {
    const device_rates& r = probed_device();
    return {arithmetic == unit::f32 ? r.fma : (std::max)(r.mma_sync, r.wgmma), (std::max)(r.read, r.copied)};
}

}  // namespace bench
