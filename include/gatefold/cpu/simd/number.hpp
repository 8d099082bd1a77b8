// The elementary functions of core/math.hpp on vectors: what they ask of a lane type.
#pragma once

#include <gatefold/core/math.hpp>
#include <gatefold/cpu/simd/vec.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

template <class T, int N>
GATEFOLD_INLINE vec<T, N> operator+(vec<T, N> a, vec<T, N> b) {
    return {a.raw + b.raw};
}
template <class T, int N>
GATEFOLD_INLINE vec<T, N> operator-(vec<T, N> a, vec<T, N> b) {
    return {a.raw - b.raw};
}
template <class T, int N>
GATEFOLD_INLINE vec<T, N> operator/(vec<T, N> a, vec<T, N> b) {
    return {a.raw / b.raw};
}
template <class T, int N>
GATEFOLD_INLINE auto operator<(vec<T, N> a, vec<T, N> b) {
    return a.raw < b.raw;
}
template <class T, int N>
GATEFOLD_INLINE auto operator==(vec<T, N> a, vec<T, N> b) {
    return a.raw == b.raw;
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu

namespace gatefold::inline v0 {

template <class T, int N>
struct number<detail::on_cpu::vec<T, N>> {
    using V = detail::on_cpu::vec<T, N>;
    using scalar_type = T;
    using word = typename number<T>::bits_type;
    using bits_type = detail::on_cpu::unsigned_vec<word, N>;

    GATEFOLD_INLINE static V broadcast(T a) { return detail::on_cpu::broadcast<T, N>(a); }
    GATEFOLD_INLINE static bits_type broadcast_bits(word a) { return detail::on_cpu::broadcast<word, N>(a).raw; }
    GATEFOLD_INLINE static V fma(V a, V b, V c) {
#if GATEFOLD_HARDWARE_FMA
        return detail::on_cpu::fma(a, b, c);
#else
        V result;
        for (int i = 0; i < N; ++i) result.raw[i] = number<T>::fma(a.raw[i], b.raw[i], c.raw[i]);
        return result;
#endif
    }
    GATEFOLD_INLINE static V mul(V a, V b) { return detail::on_cpu::mul(a, b); }
    GATEFOLD_INLINE static V divide(V a, V b) { return {a.raw / b.raw}; }
    GATEFOLD_INLINE static V sqrt(V a) {
        // By intrinsics: a loop over __builtin_sqrt stays scalar, because it may have to set errno.
#if GATEFOLD_AVX512
        if constexpr (std::is_same_v<V, detail::on_cpu::vec<float>>) return {_mm512_maskz_sqrt_ps(0xffff, a.raw)};
        if constexpr (std::is_same_v<V, detail::on_cpu::vec<double>>) return {_mm512_maskz_sqrt_pd(0xff, a.raw)};
#elif GATEFOLD_AVX2
        if constexpr (std::is_same_v<V, detail::on_cpu::vec<float>>) return {_mm256_sqrt_ps(a.raw)};
        if constexpr (std::is_same_v<V, detail::on_cpu::vec<double>>) return {_mm256_sqrt_pd(a.raw)};
#endif
        V result;
        for (int i = 0; i < N; ++i) result.raw[i] = number<T>::sqrt(a.raw[i]);
        return result;
    }
    GATEFOLD_INLINE static V negate(V a) { return {-a.raw}; }
    // One instruction each, where the select that they stand for would be two.
    GATEFOLD_INLINE static V lesser(V a, V b) {
#if GATEFOLD_AVX512
        if constexpr (std::is_same_v<V, detail::on_cpu::vec<float>>) return {_mm512_maskz_min_ps(0xffff, a.raw, b.raw)};
        if constexpr (std::is_same_v<V, detail::on_cpu::vec<double>>) return {_mm512_maskz_min_pd(0xff, a.raw, b.raw)};
#elif GATEFOLD_AVX2
        if constexpr (std::is_same_v<V, detail::on_cpu::vec<float>>) return {_mm256_min_ps(a.raw, b.raw)};
        if constexpr (std::is_same_v<V, detail::on_cpu::vec<double>>) return {_mm256_min_pd(a.raw, b.raw)};
#endif
        return {a.raw < b.raw ? a.raw : b.raw};
    }
    GATEFOLD_INLINE static V greater(V a, V b) {
#if GATEFOLD_AVX512
        if constexpr (std::is_same_v<V, detail::on_cpu::vec<float>>) return {_mm512_maskz_max_ps(0xffff, a.raw, b.raw)};
        if constexpr (std::is_same_v<V, detail::on_cpu::vec<double>>) return {_mm512_maskz_max_pd(0xff, a.raw, b.raw)};
#elif GATEFOLD_AVX2
        if constexpr (std::is_same_v<V, detail::on_cpu::vec<float>>) return {_mm256_max_ps(a.raw, b.raw)};
        if constexpr (std::is_same_v<V, detail::on_cpu::vec<double>>) return {_mm256_max_pd(a.raw, b.raw)};
#endif
        return {a.raw > b.raw ? a.raw : b.raw};
    }
    template <class Mask>
    GATEFOLD_INLINE static V select(Mask mask, V a, V b) {
        return {mask ? a.raw : b.raw};
    }
    GATEFOLD_INLINE static bits_type to_bits(V a) { return reinterpret_cast<bits_type>(a.raw); }
    GATEFOLD_INLINE static V from_bits(bits_type a) { return {reinterpret_cast<typename V::raw_type>(a)}; }
    GATEFOLD_INLINE static bits_type add(bits_type a, bits_type b) { return a + b; }
    GATEFOLD_INLINE static bits_type subtract(bits_type a, bits_type b) { return a - b; }
    GATEFOLD_INLINE static bits_type bit_and(bits_type a, bits_type b) { return a & b; }
    GATEFOLD_INLINE static bits_type bit_or(bits_type a, bits_type b) { return a | b; }
    template <int Places>
    GATEFOLD_INLINE static bits_type shift_left(bits_type a) {
        return a << Places;
    }
    template <int Places>
    GATEFOLD_INLINE static bits_type shift_right(bits_type a) {
        return a >> Places;
    }
};

}  // namespace gatefold::inline v0
