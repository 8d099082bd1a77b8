// What rows of numbers ask of registers: which lanes stand out, what stands behind the end, rounding in between.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <gatefold/cpu/simd/vec.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Bit i says whether a[i] > b[i]; not where one of them is a NaN.
template <class A>
GATEFOLD_INLINE std::uint32_t lanes_above(vec<A> a, vec<A> b) {
#if GATEFOLD_AVX512
    if constexpr (std::is_same_v<A, float>)
        return _mm512_cmp_ps_mask(a.raw, b.raw, _CMP_GT_OQ);
    else
        return _mm512_cmp_pd_mask(a.raw, b.raw, _CMP_GT_OQ);
#elif GATEFOLD_AVX2
    if constexpr (std::is_same_v<A, float>)
        return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a.raw, b.raw, _CMP_GT_OQ)));
    else
        return static_cast<std::uint32_t>(_mm256_movemask_pd(_mm256_cmp_pd(a.raw, b.raw, _CMP_GT_OQ)));
#else
    std::uint32_t bits = 0;
    for (int i = 0; i < lanes<A>; ++i) bits |= (a[i] > b[i] ? 1u : 0u) << i;
    return bits;
#endif
}

/// The first `count` numbers and `other` behind them; nothing beyond them is read.
template <class A>
GATEFOLD_INLINE vec<A> load_or(const A* p, index_t count, A other) {
    if (count >= lanes<A>) return load<A>(p);
#if GATEFOLD_AVX512
    const auto there = (1u << count) - 1u;
    if constexpr (std::is_same_v<A, float>)
        return {_mm512_mask_loadu_ps(broadcast<A>(other).raw, static_cast<__mmask16>(there), p)};
    else
        return {_mm512_mask_loadu_pd(broadcast<A>(other).raw, static_cast<__mmask8>(there), p)};
#else
    A part[std::size_t{lanes<A>}];
    for (int i = 0; i < lanes<A>; ++i) part[i] = i < count ? p[i] : other;
    return load<A>(part);
#endif
}

/// Rounds to T and back, as storing does.
template <class T, class A>
GATEFOLD_INLINE vec<A> rounded_to(vec<A> v) {
    if constexpr (std::is_same_v<T, A>)
        return v;
    else {
        T stored[std::size_t{lanes<A>}];
        store(stored, v);
        return load<A>(static_cast<const T*>(stored));
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
