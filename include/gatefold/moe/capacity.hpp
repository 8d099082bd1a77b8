// How many rows an expert takes, and the stage that applies it.
//
//     routing ── apply_capacity ──> kept[T*S]; weights of dropped pairs are zero ── make_plan leaves them out
#pragma once

#include <cstdint>

#include <gatefold/moe/check.hpp>
#include <gatefold/moe/router.hpp>

namespace gatefold::inline v0 {

namespace detail {

/// The shortest decimal number that a float factor can have been written as: 1.1f is 1.1, not 1.10000002, or rounding
/// up takes one row more.
constexpr double decimal_of(float factor) {
    const double exact = static_cast<double>(factor);
    if (exact > -1e6 && exact < 1e6)
        for (double power = 1; power <= 1e9; power *= 10) {
            const double digits =
                static_cast<double>(static_cast<std::int64_t>(exact * power + (exact < 0 ? -0.5 : 0.5)));
            if (static_cast<float>(digits / power) == factor) return digits / power;
        }
    return exact;
}
GATEFOLD_HD constexpr index_t floor_of(double x) {
    const auto whole = static_cast<index_t>(x);
    return static_cast<double>(whole) > x ? whole - 1 : whole;
}
GATEFOLD_HD constexpr index_t ceil_of(double x) { return -floor_of(-x); }
GATEFOLD_HD constexpr index_t round_half_even(double x) {
    const index_t down = floor_of(x);
    const double rest = x - static_cast<double>(down);
    return rest > 0.5 || (rest == 0.5 && down % 2 != 0) ? down + 1 : down;
}

/// capacity_of for a factor as a decimal: no step of it rounds differently on a device.
GATEFOLD_HD constexpr index_t capacity_of_decimal(const capacity_config& c, double f, index_t tokens, int experts,
                                                  int k, bool training, index_t largest_load) {
    const double t = static_cast<double>(tokens), e = experts;
    const index_t each = ceil_div<index_t>(tokens, experts);
    const auto at_least = [](index_t n, index_t least) { return n < least ? least : n; };
    switch (c.rule) {
        case capacity_rule::none:
            return tokens * k;
        case capacity_rule::mesh: {
            const index_t n = floor_of(t * f / e);
            return at_least(n < tokens ? n : tokens, 4);
        }
        case capacity_rule::flaxformer:
            return at_least(round_half_even(f * t / e), 4);
        case capacity_rule::megatron:
            return at_least(ceil_of(t * k / e * f), c.minimum);
        case capacity_rule::deepspeed: {
            index_t n = f > 0 ? k * floor_of(f * static_cast<double>(each)) : largest_load;
            if (f < 0) {
                const index_t most = k * floor_of(-f * static_cast<double>(each));
                n = n < most ? n : most;
            }
            return round_up<index_t>(n, c.alignment);
        }
        case capacity_rule::nllb:
            return !training && f > 0 ? ceil_of(f * t) : 2 * each;
        case capacity_rule::hunyuan:
            return at_least(k * tokens / experts, k);
        case capacity_rule::fixed:
            return c.rows;
        case capacity_rule::share:
            return floor_of(t * f / e);
    }
    return 0;
}

}  // namespace detail

/// Rows that each of `experts` experts takes from a group of `tokens` tokens with `k` choices each.
///
/// `factor` is the capacity factor (for the nllb rule the fraction at inference); `largest_load` is the number of pairs
/// of the busiest expert, which only the deepspeed rule asks for, when factor is not positive.
constexpr index_t capacity_of(const capacity_config& c, float factor, index_t tokens, int experts, int k, bool training,
                              index_t largest_load) {
    return detail::capacity_of_decimal(c, detail::decimal_of(factor), tokens, experts, k, training, largest_load);
}

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Drops the (token, slot) pairs that exceed their expert's capacity: kept is 0 for them and for empty slots, 1 for all
/// others, and their weights become zero. With capacity.renormalise_kept the weights of the survivors are divided anew.
///
/// Shapes:  routing as route filled it, kept [T * S].
/// Throws:  argument_error for views that do not fit, are null or misaligned; nothing is written then.
/// The number of dropped pairs is added to ctx.report().
template <layer_type L, backend B>
void apply_capacity(context<B>& ctx, const batch<L, B>& in, const std::type_identity_t<routing_view<L, B>>& routing,
                    std::type_identity_t<basic_view<B, std::uint8_t, dyn>> kept, const options<L>& o = {}) {
    static_assert(drops(L::c), "gatefold::apply_capacity: the layer has no capacity; set .capacity.rule");
    const index_t tokens = in.x.extent(0);
    detail::check_batch("apply_capacity", ctx, in, true);
    detail::check_view("apply_capacity", "ids", routing.ids, tokens);
    detail::check_view("apply_capacity", "weights", routing.weights, tokens);
    detail::check_view("apply_capacity", "logits", routing.logits, tokens);
    detail::check_view("apply_capacity", "kept", kept, tokens * L::slots);
    if (tokens == 0) return;
    detail::routing_impl<B>::apply_capacity(ctx, in, o, routing, kept);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
