// The order in which the products of a bf16 dot product are summed; every other type has one order on every target.
#pragma once

#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0 {

/// fastest:  dot where the target is faster in it, portable everywhere else.
/// portable: what every target produces bit for bit: 32 products at a time, the even and the odd ones in two chains of
///           fused multiply-adds from zero, even + odd, then added to the sum.
/// dot:      the order of AVX-512's bf16 dot-product instruction: per pair the odd product, then the even one.
/// f32, f64, f16: one chain of fused multiply-adds in ascending k, whatever is chosen here.
enum class order { fastest, portable, dot };

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// The order that `order::fastest` stands for in this translation unit. AMX machines have the portable order in
/// hardware; AVX-512-BF16 without AMX is faster in its own.
constexpr order resolve(order o) {
    if (o != order::fastest) return o;
#if GATEFOLD_AVX512_BF16 && !GATEFOLD_AMX && !defined(GATEFOLD_COMMON_ORDER)
    return order::dot;
#else
    return order::portable;
#endif
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
