// Sort by expert as a call of its own: ids in, plan out.
#pragma once

#include <gatefold/moe/check.hpp>
#include <gatefold/moe/seam.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <layer_type L, backend B>
void check_plan_call(const basic_view<B, const std::int32_t, dyn, L::slots>& ids, const plan_view<B>& out,
                     const basic_view<B, const std::uint8_t, dyn>& kept) {
    const index_t tokens = ids.extent(0), pairs = tokens * L::slots;
    check_view("make_plan", "ids", ids, tokens);
    if (!(tokens <= most_tokens(L::c))) [[unlikely]]
        reject("make_plan", "ids", counted("at most ", most_tokens(L::c), " rows"), tokens);
    require(ids.is_contiguous() || tokens <= 1, "make_plan", "ids", "rows without gaps", ids.row_stride());
    if (!(out.tokens == tokens)) [[unlikely]]
        reject("make_plan", "plan", counted("a plan of ", tokens, " tokens"), out.tokens);
    if (!(out.slots == L::slots)) [[unlikely]]
        reject("make_plan", "plan", counted("a plan of ", L::slots, " slots"), out.slots);
    check_view("make_plan", "offsets", out.offsets, L::choices + 1);
    check_view("make_plan", "rows", out.rows, pairs);
    check_view("make_plan", "place", out.place, pairs);
    if (kept.data()) check_view("make_plan", "kept", kept, pairs);
    check_disjoint("make_plan", "rows", out.rows, "ids", ids);
    check_disjoint("make_plan", "place", out.place, "ids", ids);
    if constexpr (__is_same(B, cpu)) {
        for (index_t p = 0; p < pairs; ++p)
            if (!(ids.data()[p] >= -1 && ids.data()[p] < L::choices)) [[unlikely]]
                reject("make_plan", "ids", counted("experts from -1 to ", L::choices - 1), ids.data()[p]);
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Fills `out` with the plan of `ids`: stable by expert, pairs with id -1 left out, and those that are not kept where
/// apply_capacity filled `kept`.
///
/// Shapes:  ids [T, S]; kept [T * S] or none; out.offsets [N + 1], out.rows and out.place [T * S], out.tokens T,
/// out.slots S. Throws:  argument_error for extents that do not fit, or (CPU) ids outside [-1, N); out is untouched
/// then.
template <layer_type L, backend B>
void make_plan(context<B>& ctx, std::type_identity_t<basic_view<B, const std::int32_t, dyn, L::slots>> ids,
               const plan_view<B>& out, std::type_identity_t<basic_view<B, const std::uint8_t, dyn>> kept = {}) {
    detail::check_plan_call<L>(ids, out, kept);
    detail::impl<B>::template make_plan<L>(ctx, ids.data(), kept.data(), out);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
