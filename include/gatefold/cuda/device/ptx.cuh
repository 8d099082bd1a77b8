// The instructions that the matrix kernels use, by name. 16-bit floats travel as bits.
#pragma once

#include <cstdint>
#include <type_traits>

#include <gatefold/core/dtype.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// A count as a value, for generic lambdas.
template <int N>
using constant_of = std::integral_constant<int, N>;

__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

/// Brings a line into the second-level cache.
__device__ __forceinline__ void prefetch_line(const void* from) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
}

/// 16 bytes past the first-level cache: weights are read once.
__device__ __forceinline__ void copy_streamed(std::uint32_t to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
/// 16 bytes through the first-level cache, or 16 zeros and no read. The form with a predicate needs no arithmetic.
__device__ __forceinline__ void copy_or_zero(std::uint32_t to, const void* from, bool skip) {
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; cp.async.ca.shared.global [%0], [%1], 16, p; }" ::"r"(to),
                 "l"(from), "r"(static_cast<std::uint32_t>(skip))
                 : "memory");
}
__device__ __forceinline__ void copy_streamed_or_zero(std::uint32_t to, const void* from, bool skip) {
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; cp.async.cg.shared.global [%0], [%1], 16, p; }" ::"r"(to),
                 "l"(from), "r"(static_cast<std::uint32_t>(skip))
                 : "memory");
}
/// Up to 8 elements of a row that keeps no alignment: `valid` are read, the others are zero. Plain loads and a store,
/// ordered by the barrier that orders the copies.
template <class T>
__device__ __forceinline__ void copy_elements(std::uint32_t to, const T* from, int valid) {
    std::uint32_t v[4];
    GATEFOLD_UNROLL
    for (int i = 0; i < 4; ++i) {
        const std::uint32_t low = 2 * i < valid ? from[2 * i].bits : 0u;
        const std::uint32_t high = 2 * i + 1 < valid ? from[2 * i + 1].bits : 0u;
        v[i] = low | high << 16;
    }
    asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3])
                 : "memory");
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Pending>
__device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

__device__ __forceinline__ void ldmatrix(std::uint32_t (&r)[4], std::uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/// A type as instructions call it.
template <class T>
struct instruction_type;
template <>
struct instruction_type<bf16> {
    static constexpr char name[] = "bf16";
};
template <>
struct instruction_type<f16> {
    static constexpr char name[] = "f16";
};

/// d[16,8] += a[16,16] b[16,8]: d0 d1 are row lane/4, d2 d3 row lane/4 + 8, columns 2 (lane%4) + {0,1}.
template <class T>
__device__ __forceinline__ void multiply_add(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                             std::uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.%10.%10.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "C"(instruction_type<T>::name));
}

/// Two sums rounded to T, the first in the lower half.
template <class T>
__device__ __forceinline__ std::uint32_t round_two(float low, float high) {
    std::uint32_t r;
    asm("cvt.rn.%3x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low), "C"(instruction_type<T>::name));
    return r;
}

/// Transposes an 8x8 matrix of 16-bit elements held as row lane/4, columns 2 (lane%4) + {0,1}.
__device__ __forceinline__ std::uint32_t transpose_matrix(std::uint32_t v) {
    std::uint32_t r;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(v));
    return r;
}

/// One store of 4, 8 or 16 bytes. By name: an assigned vector is scalar stores to the optimiser, which does not always
/// join them again.
template <std::size_t Words>
__device__ __forceinline__ void store_words(void* to, const std::uint32_t (&v)[Words]) {
    if constexpr (Words == 4)
        asm volatile("st.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(to), "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3])
                     : "memory");
    else if constexpr (Words == 2)
        asm volatile("st.global.v2.u32 [%0], {%1,%2};" ::"l"(to), "r"(v[0]), "r"(v[1]) : "memory");
    else
        asm volatile("st.global.u32 [%0], %1;" ::"l"(to), "r"(v[0]) : "memory");
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
