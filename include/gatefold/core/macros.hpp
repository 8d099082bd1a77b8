// What differs between compilers and targets, in one place; the rest of the library never asks which compiler it is.
//
// Every entity of the library lives in one of two namespaces:
//     gatefold::v0            types: their layout never depends on flags, so they may cross translation units
//     gatefold::v0::<tier>    functions: the tier is spelled from the instruction sets the compiler may use, so that
//                             two translation units built with different -march flags never share a function body
#pragma once

#if defined(GATEFOLD_SINGLE_HEADER)
#error "gatefold: this file already includes the single header; use either it or <gatefold/...>, not both"
#endif

#if !defined(__CUDACC__) && __cplusplus < 202002L
#error "gatefold needs C++20: compile with -std=c++20 or newer"
#endif
#if defined(__CUDACC__) && __cplusplus < 202002L
#error "gatefold needs C++20: compile with nvcc -std=c++20"
#endif

#define GATEFOLD_PASTE_(a, b) a##b
#define GATEFOLD_PASTE(a, b) GATEFOLD_PASTE_(a, b)

// ---- host and device
#if defined(__CUDACC__)
#pragma nv_diag_suppress 1675  // #pragma GCC unroll, which nvcc hands on to the host compiler without knowing it
#define GATEFOLD_HD __host__ __device__
#else
#define GATEFOLD_HD
#endif
// Statements of host functions that nvcc's device pass must not see: it would compile templates for host and device on
// the CPU's vectors, which do not exist there.
#if defined(__CUDA_ARCH__)
#define GATEFOLD_HOST_ONLY(...)
#else
#define GATEFOLD_HOST_ONLY(...) __VA_ARGS__
#endif
// Before a template for host and device whose callable argument may be of either side.
#if defined(__CUDACC__)
#define GATEFOLD_ANY_CALLABLE _Pragma("nv_exec_check_disable")
#else
#define GATEFOLD_ANY_CALLABLE
#endif
#if defined(__CUDA_ARCH__)
#define GATEFOLD_ON_DEVICE 1
#else
#define GATEFOLD_ON_DEVICE 0
#endif

// ---- instruction sets
// GATEFOLD_PORTABLE (a build definition) switches every instruction set off; the results do not change.
#if defined(__x86_64__) && !defined(GATEFOLD_PORTABLE)
#define GATEFOLD_X86 1
#else
#define GATEFOLD_X86 0
#endif
#if GATEFOLD_X86 && defined(__AVX2__) && defined(__FMA__)
#define GATEFOLD_AVX2 1
#else
#define GATEFOLD_AVX2 0
#endif
#if GATEFOLD_AVX2 && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define GATEFOLD_AVX512 1
#else
#define GATEFOLD_AVX512 0
#endif
#if GATEFOLD_AVX512 && defined(__AVX512BF16__)
#define GATEFOLD_AVX512_BF16 1
#else
#define GATEFOLD_AVX512_BF16 0
#endif
// clang 14 spells the macros of AMX without the underscore.
#if GATEFOLD_AVX512_BF16 && \
    ((defined(__AMX_TILE__) && defined(__AMX_BF16__)) || (defined(__AMXTILE__) && defined(__AMXBF16__)))
#define GATEFOLD_AMX 1
#else
#define GATEFOLD_AMX 0
#endif
// Does the target fuse multiply and add in hardware? Without it an fma of core/math is a (slow, exact) function.
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__CUDA_ARCH__)
#define GATEFOLD_HARDWARE_FMA 1
#else
#define GATEFOLD_HARDWARE_FMA 0
#endif

// GATEFOLD_SOFTWARE_TILES (a build definition) replaces the matrix unit of the AMX tier by its twin in plain code,
// which any machine with the tier's vectors runs.
#if GATEFOLD_AMX && defined(GATEFOLD_SOFTWARE_TILES)
#define GATEFOLD_TIER_ISA amx_in_software
#elif GATEFOLD_AMX
#define GATEFOLD_TIER_ISA amx
#elif GATEFOLD_AVX512_BF16
#define GATEFOLD_TIER_ISA avx512_bf16
#elif GATEFOLD_AVX512
#define GATEFOLD_TIER_ISA avx512
#elif GATEFOLD_AVX2
#define GATEFOLD_TIER_ISA avx2
#elif defined(__FMA__) || defined(__ARM_FEATURE_FMA)  // of the host: both passes of nvcc name one tier
#define GATEFOLD_TIER_ISA portable_fma
#else
#define GATEFOLD_TIER_ISA portable
#endif

// GATEFOLD_COMMON_ORDER (a build definition) makes order::portable the default on every tier.
#if defined(GATEFOLD_COMMON_ORDER)
#define GATEFOLD_TIER_ORDER _common
#else
#define GATEFOLD_TIER_ORDER
#endif
#if defined(_OPENMP)
#define GATEFOLD_TIER_THREADS _openmp
#else
#define GATEFOLD_TIER_THREADS
#endif
#define GATEFOLD_TIER GATEFOLD_PASTE(GATEFOLD_PASTE(GATEFOLD_TIER_ISA, GATEFOLD_TIER_ORDER), GATEFOLD_TIER_THREADS)

#define GATEFOLD_TEXT_(...) #__VA_ARGS__
#define GATEFOLD_TEXT(...) GATEFOLD_TEXT_(__VA_ARGS__)

// ---- code generation
#define GATEFOLD_INLINE inline __attribute__((always_inline))
#define GATEFOLD_NOINLINE __attribute__((noinline))
#define GATEFOLD_RESTRICT __restrict__
#define GATEFOLD_PRAGMA(...) _Pragma(#__VA_ARGS__)
#if defined(__CUDA_ARCH__) || defined(__clang__)
#define GATEFOLD_UNROLL GATEFOLD_PRAGMA(unroll)
#else
#define GATEFOLD_UNROLL GATEFOLD_PRAGMA(GCC unroll 64)
#endif
#if defined(_OPENMP)
#define GATEFOLD_OMP(...) GATEFOLD_PRAGMA(omp __VA_ARGS__)
#else
#define GATEFOLD_OMP(...)
#endif

// Exceptions become an abort with the same text where the program is built without them.
#if defined(__cpp_exceptions) || defined(__CUDACC__)
#define GATEFOLD_THROW(...) throw __VA_ARGS__
#else
#define GATEFOLD_THROW(...) ::gatefold::detail::abort_with((__VA_ARGS__).what())
#endif
