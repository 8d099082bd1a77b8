// Experts of equal length: a plan padded to its capacity, for kernels and exchanges that want C rows of every expert.
//
//     plan ── pad_plan ──> pairs[N,C], -1 where there is none
//     x[T,H] ── gather_padded ──> blocks[N,C,H], zeros where there is none ── any experts ──> returned[N,C,W]
//     returned ── unpad ──> z[rows,W] in plan order ── combine ──> y
//
// A row does not see the others, so the result is that of the unpadded layer, to the bit where the experts' is.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include <gatefold/core/dtype.hpp>
#include <gatefold/core/error.hpp>
#include <gatefold/moe/plan.hpp>

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// pairs[e, c] = the c-th (token, slot) pair of expert e in the order of the plan, -1 from its last row on.
///
/// Shapes:  plan.offsets [N + 1], pairs [N, C] with C at least the largest number of rows of an expert.
/// Throws:  argument_error for an expert with more rows than C, or extents that do not fit; nothing is written then.
inline void pad_plan(const plan_view<cpu>& plan, view<std::int32_t, dyn, dyn> pairs) {
    const index_t experts = plan.offsets.extent(0) - 1, capacity = pairs.extent(1);
    require(pairs.extent(0) == experts, "pad_plan", "pairs", experts, pairs.extent(0));
    for (index_t e = 0; e < experts; ++e)
        if (!(plan.offsets[e + 1] - plan.offsets[e] <= capacity)) [[unlikely]]
            detail::reject("pad_plan", "pairs",
                           detail::text_of(detail::counted("room for the ", plan.offsets[e + 1] - plan.offsets[e],
                                                           " rows of expert ")) +
                               std::to_string(e),
                           capacity);
    for (index_t e = 0; e < experts; ++e)
        for (index_t c = 0; c < capacity; ++c) {
            const index_t row = plan.offsets[e] + c;
            pairs(e, c) = row < plan.offsets[e + 1] ? plan.rows[row] : -1;
        }
}

/// blocks[e, c] = the token of pairs[e, c], or zeros.
///
/// Shapes:  x [T, H], pairs [N, C] of pad_plan for `slots` slots per token, blocks [N * C, H].
/// Throws:  argument_error for pairs of other tokens, or extents that do not fit; nothing is written then.
template <class T, int H>
void gather_padded(view<const T, dyn, H> x, std::type_identity_t<view<const std::int32_t, dyn, dyn>> pairs, int slots,
                   std::type_identity_t<view<T, dyn, H>> blocks) {
    const index_t rows = pairs.extent(0) * pairs.extent(1), capacity = pairs.extent(1);
    require(blocks.extent(0) == rows && blocks.extent(1) == x.extent(1), "gather_padded", "blocks", rows,
            blocks.extent(0));
    for (index_t r = 0; r < rows; ++r) {
        const std::int32_t pair = pairs(r / capacity, r % capacity);
        require(pair >= -1 && pair / slots < x.extent(0), "gather_padded", "pairs", "pairs of the tokens, or -1", pair);
    }
    for (index_t r = 0; r < rows; ++r) {
        const std::int32_t pair = pairs(r / capacity, r % capacity);
        for (index_t h = 0; h < x.extent(1); ++h)
            blocks.row(r)[h] = pair < 0 ? from_accumulate<T>(accumulate_t<T>(0)) : x.row(pair / slots)[h];
    }
}

/// z[r] = what the expert of row r returned for it, without the padding.
///
/// Shapes:  returned [N * C, W], z [rows of the plan or more, W].
/// Throws:  argument_error for extents that do not fit; nothing is written then.
template <class T, int W>
void unpad(view<const T, dyn, W> returned, const plan_view<cpu>& plan, std::type_identity_t<view<T, dyn, W>> z) {
    const index_t experts = plan.offsets.extent(0) - 1, rows = plan.offsets[experts];
    require(returned.extent(0) % experts == 0, "unpad", "returned", "as many rows of every expert", returned.extent(0));
    require(z.extent(0) >= rows && z.extent(1) == returned.extent(1), "unpad", "z", rows, z.extent(0));
    const index_t capacity = returned.extent(0) / experts;
    for (index_t e = 0; e < experts; ++e)
        require(plan.offsets[e + 1] - plan.offsets[e] <= capacity, "unpad", "returned", "all rows of every expert",
                capacity);
    for (index_t e = 0; e < experts; ++e)
        for (index_t r = plan.offsets[e]; r < plan.offsets[e + 1]; ++r)
            for (index_t w = 0; w < z.extent(1); ++w) z.row(r)[w] = returned.row(e * capacity + r - plan.offsets[e])[w];
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
