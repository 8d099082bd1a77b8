// Draws of one token on vectors: the numbers of counter_rng for neighbouring indices, many counters at a time.
//
//     counters q, q + 1, … ── Philox, one counter a lane ──> words 4 q, 4 q + 1, … ──> uniform, gumbel, normal
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <gatefold/core/random.hpp>
#include <gatefold/cpu/simd/number.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// The upper halves of a · factor, lane by lane.
template <int N>
GATEFOLD_INLINE unsigned_vec<std::uint32_t, N> upper_product(unsigned_vec<std::uint32_t, N> a, std::uint32_t factor) {
    unsigned_vec<std::uint32_t, N> result;
#if GATEFOLD_AVX512
    if constexpr (N == 16) {
        __m512i x;
        std::memcpy(&x, &a, sizeof x);
        const __m512i f = _mm512_set1_epi64(factor);
        // With masks of all lanes: g++ 12 warns of the undefined operand of the plain ones.
        const __m512i even = _mm512_maskz_mul_epu32(0xff, x, f),
                      odd = _mm512_maskz_mul_epu32(0xff, _mm512_maskz_srli_epi64(0xff, x, 32), f);
        const __m512i upper = _mm512_mask_blend_epi32(0xaaaa, _mm512_maskz_srli_epi64(0xff, even, 32), odd);
        std::memcpy(&result, &upper, sizeof result);
        return result;
    }
#endif
#if GATEFOLD_AVX2
    if constexpr (N == 8) {
        __m256i x;
        std::memcpy(&x, &a, sizeof x);
        const __m256i f = _mm256_set1_epi64x(factor);
        const __m256i even = _mm256_mul_epu32(x, f), odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), f);
        const __m256i upper = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
        std::memcpy(&result, &upper, sizeof result);
        return result;
    }
#endif
    for (int i = 0; i < N; ++i) result[i] = static_cast<std::uint32_t>(std::uint64_t{a[i]} * factor >> 32);
    return result;
}

/// The words of N counters, of which `first` is the first: four of each.
template <int N>
GATEFOLD_NOINLINE void philox_words(random_words first, std::uint64_t seed, std::uint32_t* to) {
    using lanes_of_words = unsigned_vec<std::uint32_t, N>;
    lanes_of_words a, b = lanes_of_words{} + first.b, c = lanes_of_words{} + first.c, d = lanes_of_words{} + first.d;
    for (int lane = 0; lane < N; ++lane) a[lane] = first.a + static_cast<std::uint32_t>(lane);
    auto key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const lanes_of_words upper_a = upper_product<N>(a, philox_factor_a), lower_a = a * philox_factor_a;
        const lanes_of_words upper_c = upper_product<N>(c, philox_factor_c), lower_c = c * philox_factor_c;
        a = upper_c ^ b ^ key0;
        b = lower_c;
        c = upper_a ^ d ^ key1;
        d = lower_a;
        key0 += philox_step_0;
        key1 += philox_step_1;
    }
    for (int lane = 0; lane < N; ++lane, to += 4) {
        to[0] = a[lane];
        to[1] = b[lane];
        to[2] = c[lane];
        to[3] = d[lane];
    }
}

/// Signed numbers, as many as a register has floats.
typedef std::int32_t integer_lanes __attribute__((vector_size(vector_bytes)));

/// Draws of one purpose for one token, a register of neighbouring indices at a time; cheapest in ascending order. The
/// numbers are those of counter_rng's functions of the same names. Counters: how many are computed at a time, at least
/// half the lanes of a float.
template <class A, int Counters = lanes<float>>
class token_draws {
    static constexpr int W = lanes<A>;
    // Four words a counter; double has draws of its own, which are taken one by one.
    static constexpr bool by_words = std::is_same_v<A, float>;
    static constexpr index_t most = by_words ? 4 * Counters : 1;
    static_assert(!by_words || most >= W + 3);

    const counter_rng& draw_;
    purpose purpose_;
    index_t token_, begin_ = 0, end_ = 0;
    alignas(64) std::uint32_t words_[std::size_t{most}];

    /// The words from index i on, without their last Drop bits, as numbers.
    template <int Drop, bool Odd>
    GATEFOLD_INLINE vec<float> numbers(index_t i) {
        if (i < begin_ || i + W > end_) {
            begin_ = i - i % 4;
            end_ = begin_ + most;
            philox_words<Counters>(draw_.counter<float>(purpose_, token_, begin_), draw_.seed, words_);
        }
        unsigned_vec<std::uint32_t, W> bits;
        std::memcpy(&bits, words_ + (i - begin_), sizeof bits);
        bits = bits >> Drop;
        if constexpr (Odd) bits = bits * 2u + 1u;
        // Below 2^24: the conversion from signed numbers is as good, and an instruction everywhere.
        integer_lanes whole;
        std::memcpy(&whole, &bits, sizeof whole);
        return {__builtin_convertvector(whole, typename vec<float>::raw_type)};
    }
    template <class Draw>
    GATEFOLD_INLINE static vec<A> one_by_one(Draw draw) {
        vec<A> result;
        for (int lane = 0; lane < W; ++lane) result.raw[lane] = draw(lane);
        return result;
    }

public:
    GATEFOLD_INLINE token_draws(const counter_rng& draw, purpose p, index_t token)
        : draw_(draw), purpose_(p), token_(token) {}

    GATEFOLD_INLINE vec<A> uniform(index_t i) {
        if constexpr (by_words)
            return mul(numbers<9, true>(i), broadcast<A>(0x1p-24f));
        else
            return one_by_one([&](int lane) { return draw_.template uniform<A>(purpose_, token_, i + lane); });
    }
    GATEFOLD_INLINE vec<A> uniform_from_zero(index_t i) {
        if constexpr (by_words)
            return mul(numbers<8, false>(i), broadcast<A>(0x1p-24f));
        else
            return one_by_one(
                [&](int lane) { return draw_.template uniform_from_zero<A>(purpose_, token_, i + lane); });
    }
    GATEFOLD_INLINE vec<A> jitter(index_t i, A epsilon) {
        using N = number<vec<A>>;
        const vec<A> u = N::fma(uniform(i), broadcast<A>(2), broadcast<A>(-1));
        return N::fma(u, broadcast<A>(epsilon), broadcast<A>(1));
    }
    GATEFOLD_INLINE vec<A> gumbel(index_t i) {
        using N = number<vec<A>>;
        return N::negate(gatefold::log(N::negate(gatefold::log(uniform(i)))));
    }
    /// i must be a multiple of the lanes.
    GATEFOLD_INLINE vec<A> normal(index_t i) {
        constexpr int each = draws_per_counter<A>;
        A n[std::size_t{W}];
        for (int lane = 0; lane < W; lane += each) draw_.normals(purpose_, token_, i + lane, n + lane);
        return load<A>(n);
    }
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
