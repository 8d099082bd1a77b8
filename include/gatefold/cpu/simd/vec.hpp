// The one vector type of the CPU kernels: as wide as a register of the tier, over compiler vectors, with intrinsics
// where the tier has them.
//
//     memory (float, double, bf16, f16) ── load: widen, exact ──> vec ── fma, mul, add ──> vec ── store: round once ──>
//
// Every lane gives the bits that the scalar functions of core give. A product is never fused with a later addition:
// g++ contracts across statements and through intrinsics under -mfma, so mul() hides its result from the optimiser.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include <gatefold/core/dtype.hpp>
#include <gatefold/core/index.hpp>
#include <gatefold/core/macros.hpp>

#if GATEFOLD_AVX2
#include <immintrin.h>
#endif

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

#if GATEFOLD_AVX512
inline constexpr int vector_bytes = 64, vector_registers = 32;
#elif GATEFOLD_AVX2
inline constexpr int vector_bytes = 32, vector_registers = 16;
#elif defined(__x86_64__)
inline constexpr int vector_bytes = 16, vector_registers = 16;
#else
inline constexpr int vector_bytes = 16, vector_registers = 32;
#endif

/// Lanes of a register of the tier.
template <class T>
inline constexpr int lanes = vector_bytes / static_cast<int>(sizeof(T));

/// N numbers of type T in one register.
template <class T, int N = lanes<T>>
struct vec {
    using value_type = T;
    typedef T raw_type __attribute__((vector_size(N * sizeof(T))));
    typedef raw_type memory_type __attribute__((aligned(1), may_alias));  ///< the same, anywhere in memory
    static constexpr int size = N;
    raw_type raw;

    GATEFOLD_INLINE T operator[](int i) const { return raw[i]; }
};

/// Bits beside a vec: what conversions and comparisons work on.
///
/// By way of a member: nvcc drops the attribute of an alias template.
template <class U, int N>
struct unsigned_lanes {
    typedef U type __attribute__((vector_size(N * sizeof(U))));
};
template <class U, int N>
using unsigned_vec = typename unsigned_lanes<U, N>::type;

template <class V>
inline constexpr bool is_vec = false;
template <class T, int N>
inline constexpr bool is_vec<vec<T, N>> = true;

/// Hides where a register's value comes from, so that no later operation is fused with the one that made it.
template <class R>
GATEFOLD_INLINE void keep_apart(R& raw) {
#if GATEFOLD_AVX512
    __asm__("" : "+v"(raw));
#elif defined(__x86_64__)
    __asm__("" : "+x"(raw));
#elif defined(__aarch64__)
    __asm__("" : "+w"(raw));
#else
    __asm__("" : "+m"(raw));
#endif
}

/// Hides how an address came about.
template <class T>
GATEFOLD_INLINE void forget(T*& p) {
    __asm__("" : "+r"(p));
}

template <class T, int N = lanes<T>>
GATEFOLD_INLINE vec<T, N> broadcast(T value) {
    // An initialiser list, because g++ builds a vector written lane by lane in memory.
    return [&]<int... At>(std::integer_sequence<int, At...>) {
        return vec<T, N>{typename vec<T, N>::raw_type{(static_cast<void>(At), value)...}};
    }
    (std::make_integer_sequence<int, N>{});
}
template <class T, int N = lanes<T>>
GATEFOLD_INLINE vec<T, N> zeros() {
    return {typename vec<T, N>::raw_type{}};
}
template <class T, int N>
GATEFOLD_INLINE vec<T, N> add(vec<T, N> a, vec<T, N> b) {
    return {a.raw + b.raw};
}
/// a · b, rounded; never part of a fused multiply-add.
template <class T, int N>
GATEFOLD_INLINE vec<T, N> mul(vec<T, N> a, vec<T, N> b) {
    auto product = a.raw * b.raw;
    keep_apart(product);
    return {product};
}
/// a · b + c lane by lane, for vectors that have no instruction of their own.
template <class T, int N>
GATEFOLD_INLINE vec<T, N> fma_by_lanes(vec<T, N> a, vec<T, N> b, vec<T, N> c) {
#if GATEFOLD_HARDWARE_FMA
    vec<T, N> result;
    for (int i = 0; i < N; ++i) {
        if constexpr (std::is_same_v<T, float>)
            result.raw[i] = __builtin_fmaf(a.raw[i], b.raw[i], c.raw[i]);
        else
            result.raw[i] = __builtin_fma(a.raw[i], b.raw[i], c.raw[i]);
    }
    return result;
#else
    return add(mul(a, b), c);
#endif
}
/// a · b + c, rounded once where the target has such an instruction; otherwise the rounded product plus c.
template <class T, int N>
GATEFOLD_INLINE vec<T, N> fma(vec<T, N> a, vec<T, N> b, vec<T, N> c) {
#if GATEFOLD_AVX512
    if constexpr (N == lanes<float> && std::is_same_v<T, float>)
        return {_mm512_fmadd_ps(a.raw, b.raw, c.raw)};
    else if constexpr (N == lanes<double> && std::is_same_v<T, double>)
        return {_mm512_fmadd_pd(a.raw, b.raw, c.raw)};
    else
#elif GATEFOLD_AVX2
    if constexpr (N == lanes<float> && std::is_same_v<T, float>)
        return {_mm256_fmadd_ps(a.raw, b.raw, c.raw)};
    else if constexpr (N == lanes<double> && std::is_same_v<T, double>)
        return {_mm256_fmadd_pd(a.raw, b.raw, c.raw)};
    else
#endif
        return fma_by_lanes(a, b, c);
}

// ---- memory

/// Reads N elements and widens them to the type sums are kept in.
template <class A, int N = lanes<A>, class T>
GATEFOLD_INLINE vec<A, N> load(const T* p) {
    if constexpr (std::is_same_v<T, A>) {
        return {*reinterpret_cast<const typename vec<A, N>::memory_type*>(p)};
    } else if constexpr (std::is_same_v<A, float> && std::is_same_v<T, bf16>) {
        unsigned_vec<std::uint16_t, N> bits;
        std::memcpy(&bits, p, sizeof bits);
        return {reinterpret_cast<typename vec<A, N>::raw_type>(
            __builtin_convertvector(bits, unsigned_vec<std::uint32_t, N>) << 16)};
    }
#if GATEFOLD_AVX512
    else if constexpr (std::is_same_v<A, float> && N == 16 && std::is_same_v<T, f16>)
        return {_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
#elif GATEFOLD_AVX2 && defined(__F16C__)
    else if constexpr (std::is_same_v<A, float> && N == 8 && std::is_same_v<T, f16>)
        return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
#endif
    else {
        vec<A, N> result;
        for (int i = 0; i < N; ++i) result.raw[i] = static_cast<A>(p[i]);
        return result;
    }
}

/// Writes N elements, rounded once to the storage type.
template <class T, class A, int N>
GATEFOLD_INLINE void store(T* p, vec<A, N> v) {
    if constexpr (std::is_same_v<T, A>)
        *reinterpret_cast<typename vec<A, N>::memory_type*>(p) = v.raw;
    else if constexpr (std::is_same_v<A, float> && std::is_same_v<T, bf16>) {
#if GATEFOLD_AVX512_BF16
        if constexpr (N == 16) {
            // The instruction reads subnormals as zero: they pass through it one binade up, where the places that go
            // are the same ones.
            __m512i bits;
            std::memcpy(&bits, &v.raw, sizeof bits);  // nvcc refuses the cast
            const __mmask16 tiny = _mm512_testn_epi32_mask(bits, _mm512_set1_epi32(0x7f800000));
            const __m512i raised = _mm512_mask_add_epi32(bits, tiny, bits, _mm512_set1_epi32(0x00800000));
            const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_castsi512_ps(raised));
            __m256i narrow;
            std::memcpy(&narrow, &rounded, sizeof narrow);
            narrow = _mm256_mask_sub_epi16(narrow, tiny, narrow, _mm256_set1_epi16(0x0080));
            std::memcpy(p, &narrow, sizeof narrow);
            return;
        }
#endif
        using word = unsigned_vec<std::uint32_t, N>;
        const word bits = reinterpret_cast<word>(v.raw), upper = bits >> 16;
        const word rounded = (bits + (upper & 1u) + 0x7fffu) >> 16;
        const word result = (bits & 0x7fffffffu) > 0x7f800000u ? upper | 0x40u : rounded;
        const auto narrow = __builtin_convertvector(result, unsigned_vec<std::uint16_t, N>);
        std::memcpy(p, &narrow, sizeof narrow);
    }
#if GATEFOLD_AVX512
    else if constexpr (std::is_same_v<A, float> && N == 16 && std::is_same_v<T, f16>)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                            _mm512_maskz_cvtps_ph(0xffff, v.raw, _MM_FROUND_TO_NEAREST_INT));
#elif GATEFOLD_AVX2 && defined(__F16C__)
    else if constexpr (std::is_same_v<A, float> && N == 8 && std::is_same_v<T, f16>)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v.raw, _MM_FROUND_TO_NEAREST_INT));
#endif
    else
        for (int i = 0; i < N; ++i) p[i] = static_cast<T>(v.raw[i]);
}

/// The first `count` elements, zeros behind them; nothing beyond them is read.
template <class A, int N = lanes<A>, class T>
GATEFOLD_INLINE vec<A, N> load_first(const T* p, index_t count) {
    if (count >= N) return load<A, N>(p);
    if (count <= 0) return zeros<A, N>();
#if GATEFOLD_AVX512
    if constexpr (std::is_same_v<A, float> && std::is_same_v<T, float> && N == 16)
        return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1u), p)};
    else if constexpr (std::is_same_v<A, double> && std::is_same_v<T, double> && N == 8)
        return {_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1u), p)};
    else if constexpr (std::is_same_v<A, float> && sizeof(T) == 2 && N == 16) {
        alignas(32) T part[std::size_t{N}];
        const __m256i there = _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << count) - 1u), p);
        std::memcpy(part, &there, sizeof there);
        return load<A, N>(part);
    }
#endif
    T part[std::size_t{N}] = {};
    for (index_t i = 0; i < count; ++i) part[i] = p[i];
    return load<A, N>(part);
}

/// The first `count` elements as they are, as many of them as a register of words holds; zeros behind them.
template <class T>
    requires(sizeof(T) == 2)
GATEFOLD_INLINE vec<float> load_words_first(const T* p, index_t count) {
    vec<float> result = zeros<float>();
    constexpr index_t all = 2 * lanes<float>;
    if (count >= all) {
        std::memcpy(&result.raw, p, sizeof result.raw);
    } else if (count > 0) {
#if GATEFOLD_AVX512
        result.raw = _mm512_castsi512_ps(_mm512_maskz_loadu_epi16((1u << count) - 1u, p));
#else
        std::memcpy(&result.raw, p, static_cast<std::size_t>(count) * sizeof(T));
#endif
    }
    return result;
}

/// Writes the first `count` elements and nothing else.
template <class T, class A, int N>
GATEFOLD_INLINE void store_first(T* p, vec<A, N> v, index_t count) {
    if (count >= N) return store(p, v);
    if (count <= 0) return;
#if GATEFOLD_AVX512
    if constexpr (std::is_same_v<A, float> && std::is_same_v<T, float> && N == 16)
        return _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1u), v.raw);
    else if constexpr (std::is_same_v<A, double> && std::is_same_v<T, double> && N == 8)
        return _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << count) - 1u), v.raw);
    else if constexpr (std::is_same_v<A, float> && sizeof(T) == 2 && N == 16) {
        T all[std::size_t{N}];
        store(all, v);
        __m256i bits;
        std::memcpy(&bits, all, sizeof bits);
        return _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1u << count) - 1u), bits);
    }
#endif
    T part[std::size_t{N}];
    store(part, v);
    for (index_t i = 0; i < count; ++i) p[i] = part[i];
}

/// The first `count` lanes of a register, zeros behind them.
template <class A, int N>
GATEFOLD_INLINE vec<A, N> first_of(vec<A, N> v, index_t count) {
    A part[std::size_t{N}];
    store(part, v);
    return load_first<A, N>(part, count);
}

/// Asks for the cache line of `p`: Near for the first-level cache, otherwise the second.
template <bool Near>
GATEFOLD_INLINE void prefetch(const void* p) {
#if defined(__x86_64__)
    // As assembly, because g++ deletes loops that hold nothing but __builtin_prefetch.
    if constexpr (Near)
        __asm__ volatile("prefetcht0 %0" ::"m"(*static_cast<const char*>(p)));
    else
        __asm__ volatile("prefetcht1 %0" ::"m"(*static_cast<const char*>(p)));
#else
    __builtin_prefetch(p, 0, Near ? 3 : 2);
#endif
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
