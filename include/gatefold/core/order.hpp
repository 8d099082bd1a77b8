// The order in which the products of a bf16 dot product are summed; every other type has one order on every target.
#pragma once

#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0 {

/// portable: what every tier produces bit for bit: 32 products at a time, the even and the odd ones in two chains of
///           fused multiply-adds from zero, even + odd, then added to the sum.
/// dot:      the order of AVX-512's bf16 dot-product instruction: per pair the odd product, then the even one.
/// f32, f64, f16: one chain of fused multiply-adds in ascending k, whatever is chosen here.
enum class order { portable, dot };

/// AMX machines have the portable order in hardware; AVX-512-BF16 without AMX is faster in its own.
#if GATEFOLD_AVX512_BF16 && !GATEFOLD_AMX && !defined(GATEFOLD_COMMON_ORDER)
inline constexpr order default_order = order::dot;
#else
inline constexpr order default_order = order::portable;
#endif

}  // namespace gatefold::inline v0
