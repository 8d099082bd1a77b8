// Stores that go around the caches, for results larger than they are: a line is neither fetched before it is written
// nor kept afterwards. What is stored is the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <gatefold/cpu/simd/vec.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Bytes beyond which no cache keeps what a call writes until it is read again.
inline constexpr std::size_t kept_in_caches = std::size_t{32} << 20;

/// Whether store_around() may write to `p`.
GATEFOLD_INLINE bool is_aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % vector_bytes == 0; }

/// store() past the caches where the tier has such an instruction for the type; `p` is aligned to a register.
template <class T, class A, int N>
GATEFOLD_INLINE void store_around(T* p, vec<A, N> v) {
#if GATEFOLD_AVX512
    if constexpr (std::is_same_v<T, float> && N == lanes<float>) return _mm512_stream_ps(p, v.raw);
    if constexpr (std::is_same_v<T, double> && N == lanes<double>) return _mm512_stream_pd(p, v.raw);
#elif GATEFOLD_AVX2
    if constexpr (std::is_same_v<T, float> && N == lanes<float>) return _mm256_stream_ps(p, v.raw);
    if constexpr (std::is_same_v<T, double> && N == lanes<double>) return _mm256_stream_pd(p, v.raw);
#endif
    store(p, v);
}

/// Makes what store_around() wrote visible to other threads before anything that this thread writes later.
GATEFOLD_INLINE void finish_stores_around() {
#if GATEFOLD_AVX2
    _mm_sfence();
#endif
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
