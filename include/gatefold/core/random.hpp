// Random numbers as a function of what they are for: no state, no order, the same bits for any thread, split or device.
//
//     (seed | step, layer, purpose, token, index) ── Philox4x32-10 ──> 128 bits ──> uniform, normal, gumbel, …
//
// Router noise, dropout and initialisation draw from here, on the CPU and on CUDA. The functions use core/math.hpp
// only.
#pragma once

#include <cstdint>
#include <type_traits>

#include <gatefold/core/index.hpp>
#include <gatefold/core/macros.hpp>
#include <gatefold/core/math.hpp>

namespace gatefold::inline v0 {

/// What a draw is for: draws for different purposes never share a counter. The numbers are part of every result: new
/// purposes go to the end (16 fit).
enum class purpose : std::uint32_t {
    input_jitter,
    gaussian,
    gumbel,
    second_expert,
    sampling,
    dropout,
    initialisation,
    expert_dropout,
};

/// The four words of one counter.
struct random_words {
    std::uint32_t a, b, c, d;
    bool operator==(const random_words&) const = default;
};

namespace detail {

/// The multipliers of Philox, and what its key grows by from round to round.
inline constexpr std::uint32_t philox_factor_a = 0xD2511F53u, philox_factor_c = 0xCD9E8D57u,
                               philox_step_0 = 0x9E3779B9u, philox_step_1 = 0xBB67AE85u;

}  // namespace detail

/// Philox4x32-10 (Salmon et al., SC 2011): ten rounds of the key over the counter.
GATEFOLD_HD GATEFOLD_INLINE constexpr random_words philox(random_words counter, std::uint32_t key0,
                                                          std::uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t first = std::uint64_t{detail::philox_factor_a} * counter.a,
                            second = std::uint64_t{detail::philox_factor_c} * counter.c;
        counter = {static_cast<std::uint32_t>(second >> 32) ^ counter.b ^ key0, static_cast<std::uint32_t>(second),
                   static_cast<std::uint32_t>(first >> 32) ^ counter.d ^ key1, static_cast<std::uint32_t>(first)};
        key0 += detail::philox_step_0;
        key1 += detail::philox_step_1;
    }
    return counter;
}

namespace detail {

/// The numbers of one counter: four floats, or two doubles.
template <class S>
inline constexpr int draws_per_counter = static_cast<int>(16 / sizeof(S));

/// A word of random bits as wide as S.
template <class S>
using draw_word = typename number<S>::bits_type;

/// The word of draw `slot` of a counter.
template <class S>
GATEFOLD_HD GATEFOLD_INLINE constexpr draw_word<S> draw_of(random_words w, int slot) {
    if constexpr (sizeof(S) == 4)
        return slot == 0 ? w.a : slot == 1 ? w.b : slot == 2 ? w.c : w.d;
    else
        return slot == 0 ? std::uint64_t{w.b} << 32 | w.a : std::uint64_t{w.d} << 32 | w.c;
}

template <class S>
struct random_pair {
    S first, second;
};

/// cos and sin of 2 pi w / 2^bits: the two highest bits choose the quarter, the rest is an exact reduction.
template <class S>
GATEFOLD_HD GATEFOLD_INLINE random_pair<S> cos_sin_of_turn(draw_word<S> w) {
    using word = draw_word<S>;
    constexpr int bits = 8 * static_cast<int>(sizeof(S));
    constexpr S unit = sizeof(S) == 4 ? S(0x1.921fb54442d18p-30) : S(0x1.921fb54442d18p-62);  // 2 pi / 2^bits
    const word quarter = (w + (word{1} << (bits - 3))) >> (bits - 2);
    const auto rest = static_cast<std::make_signed_t<word>>(w - (quarter << (bits - 2)));
    const S x = mul(static_cast<S>(rest), unit), z = mul(x, x);
    S odd, even;
    if constexpr (sizeof(S) == 4) {
        odd = horner(z, -0x1.555546p-3f, 0x1.11075cp-7f, -0x1.994cfp-13f);
        even = horner(z, 0x1.55554ap-5f, -0x1.6c0c86p-10f, 0x1.9a00cep-16f);
    } else {
        odd = horner(z, -0x1.5555555555549p-3, 0x1.111111110f861p-7, -0x1.a01a019c0e419p-13, 0x1.71de3574b03ebp-19,
                     -0x1.ae5e63c53fe6ep-26, 0x1.5d92445fd0112p-33);
        even = horner(z, 0x1.555555555554cp-5, -0x1.6c16c16c15163p-10, 0x1.a01a019caef9ap-16, -0x1.27e4f807da4f2p-22,
                      0x1.1ee9ea6f60f03p-29, -0x1.8fadd1afcb653p-37);
    }
    const S sin = fma(mul(x, z), odd, x), cos = fma(mul(z, z), even, fma(z, S(-0.5), S(1)));
    const S c = (quarter & 1u) != 0 ? sin : cos, s = (quarter & 1u) != 0 ? cos : sin;
    return {((quarter + 1u) & 2u) != 0 ? -c : c, (quarter & 2u) != 0 ? -s : s};
}

}  // namespace detail

/// The draws of one layer in one step of one run.
///
/// A draw is named by its purpose, the token's index in the whole batch and an index within the token (an expert, a
/// hidden unit; for initialisation a row and a column). S is float or double; the two have draws of their own.
///
/// The counter of Philox, key = seed (low word first), for q = index / (numbers of S in 16 bytes):
///     a  q                                               b  token, low 32 bits
///     c  layer[12] purpose[4] attempt[6] token[41:32]     d  step, low 32 bits          (c: high bits first)
/// so that draws are distinct for steps below 2^32, layers below 4096, tokens below 2^42, and indices below 2^33.
struct counter_rng {
    std::uint64_t seed = 0, step = 0;
    int layer = 0;

    // Both stand first: clang 14 evaluates constant expressions with what it has seen.
    /// The counter that a draw belongs to; the next one has the next index / (numbers of S in 16 bytes) in its word a.
    template <class S>
    GATEFOLD_HD GATEFOLD_INLINE constexpr random_words counter(purpose p, index_t token, index_t index,
                                                               int attempt = 0) const {
        const auto t = static_cast<std::uint64_t>(token), i = static_cast<std::uint64_t>(index);
        const std::uint32_t place = static_cast<std::uint32_t>(layer) << 20 | static_cast<std::uint32_t>(p) << 16 |
                                    static_cast<std::uint32_t>(attempt) << 10 |
                                    static_cast<std::uint32_t>(t >> 32 & 0x3ffu);
        return {static_cast<std::uint32_t>(i / detail::draws_per_counter<S>), static_cast<std::uint32_t>(t), place,
                static_cast<std::uint32_t>(step)};
    }

private:
    template <class S>
    GATEFOLD_HD GATEFOLD_INLINE constexpr random_words words(purpose p, index_t token, index_t index,
                                                             int attempt) const {
        return philox(counter<S>(p, token, index, attempt), static_cast<std::uint32_t>(seed),
                      static_cast<std::uint32_t>(seed >> 32));
    }

    template <class S>
    GATEFOLD_HD GATEFOLD_INLINE constexpr detail::draw_word<S> word(purpose p, index_t token, index_t index) const {
        return detail::draw_of<S>(words<S>(p, token, index, 0), static_cast<int>(index % detail::draws_per_counter<S>));
    }

    template <class S>
    GATEFOLD_HD GATEFOLD_INLINE static detail::random_pair<S> box_muller(random_words w, int slot) {
        detail::draw_word<S> distance, turn;
        if constexpr (sizeof(S) == 4)
            distance = slot < 2 ? w.a : w.c, turn = slot < 2 ? w.b : w.d;
        else
            distance = detail::draw_of<S>(w, 0), turn = detail::draw_of<S>(w, 1);
        constexpr S unit = sizeof(S) == 4 ? S(0x1p-32) : S(0x1p-64);
        const S u = fma(static_cast<S>(distance), unit, unit / 2);
        const S radius = sqrt(mul(S(-2), log(u)));
        const auto on_circle = detail::cos_sin_of_turn<S>(turn);
        return {mul(radius, on_circle.first), mul(radius, on_circle.second)};
    }

    template <class S>
    GATEFOLD_HD GATEFOLD_INLINE S normal_attempt(purpose p, index_t token, index_t index, int attempt) const {
        const int slot = static_cast<int>(index % detail::draws_per_counter<S>);
        const auto pair = box_muller<S>(words<S>(p, token, index, attempt), slot);
        return slot % 2 == 0 ? pair.first : pair.second;
    }

public:
    /// 32 random bits.
    GATEFOLD_HD GATEFOLD_INLINE constexpr std::uint32_t bits(purpose p, index_t token, index_t index) const {
        return word<float>(p, token, index);
    }

    /// Uniform on (0, 1): never 0, never 1; multiples of 2^-24 (float) or 2^-53 (double).
    template <class S = float>
    GATEFOLD_HD GATEFOLD_INLINE S uniform(purpose p, index_t token, index_t index) const {
        constexpr int drop = sizeof(S) == 4 ? 9 : 12;
        return mul(static_cast<S>((word<S>(p, token, index) >> drop) * 2u + 1u), S(sizeof(S) == 4 ? 0x1p-24 : 0x1p-53));
    }

    /// Uniform on [0, 1): below q with probability q, also for q = 0 and q = 1.
    template <class S = float>
    GATEFOLD_HD GATEFOLD_INLINE S uniform_from_zero(purpose p, index_t token, index_t index) const {
        constexpr int drop = sizeof(S) == 4 ? 8 : 11;
        return mul(static_cast<S>(word<S>(p, token, index) >> drop), S(sizeof(S) == 4 ? 0x1p-24 : 0x1p-53));
    }

    /// Uniform between 1 - epsilon and 1 + epsilon, the factor of input jitter.
    template <class S>
    GATEFOLD_HD GATEFOLD_INLINE S jitter(index_t token, index_t index, S epsilon) const {
        return fma(fma(uniform<S>(purpose::input_jitter, token, index), S(2), S(-1)), epsilon, S(1));
    }

    /// Normal with mean 0 and variance 1, up to 6.7 (float) or 9.4 (double) away from the mean (Box-Muller).
    template <class S = float>
    GATEFOLD_HD GATEFOLD_INLINE S normal(purpose p, index_t token, index_t index) const {
        return normal_attempt<S>(p, token, index, 0);
    }

    /// The normals of `count` = 4 (float) or 2 (double) neighbouring indices from `index` on, which must be a multiple
    /// of it: the same numbers as normal() gives one by one, for the price of one.
    template <class S>
    GATEFOLD_HD GATEFOLD_INLINE void normals(purpose p, index_t token, index_t index, S* out) const {
        const random_words w = words<S>(p, token, index, 0);
        for (int slot = 0; slot < detail::draws_per_counter<S>; slot += 2) {
            const auto pair = box_muller<S>(w, slot);
            out[slot] = pair.first;
            out[slot + 1] = pair.second;
        }
    }

    /// Normal, drawn again while it lies more than `bound` away from 0; bound at least 1.
    ///
    /// The variance is below 1 (0.774 for bound 2): a caller who wants a given deviation divides by its root.
    template <class S = float>
    GATEFOLD_HD GATEFOLD_INLINE S truncated_normal(purpose p, index_t token, index_t index, S bound = S(2)) const {
        for (int attempt = 0; attempt < 64; ++attempt) {
            const S x = normal_attempt<S>(p, token, index, attempt);
            if (x <= bound && -x <= bound) return x;
        }
        return S(0);  // once in 10^31 draws
    }

    /// Standard Gumbel: argmax of logits + gumbel samples their softmax.
    template <class S = float>
    GATEFOLD_HD GATEFOLD_INLINE S gumbel(purpose p, index_t token, index_t index) const {
        return -log(-log(uniform<S>(p, token, index)));
    }
};

}  // namespace gatefold::inline v0
