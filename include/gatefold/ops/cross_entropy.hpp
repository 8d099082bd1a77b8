// The loss of next-token prediction: log-softmax, the logarithm at the target, the mean over the tokens that count, and
// the gradient of that mean in the same pass.
#pragma once

#include <cstdint>
#include <type_traits>

#include <gatefold/ops/arguments.hpp>
#include <gatefold/ops/softmax.hpp>

namespace gatefold::inline v0 {

/// The mean of −log p(target), and over how many tokens; 0 over 0 tokens.
template <class A>
struct cross_entropy_result {
    A loss;
    index_t tokens;
};

/// A target that is not counted: its token adds nothing to the loss and its gradient is zero.
inline constexpr std::int32_t ignored_target = -100;

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// Checks the targets and counts those that are not ignored.
template <class Targets>
index_t count_targets(const Targets& targets, index_t classes, std::int32_t ignore) {
    index_t counted = 0;
    for (index_t t = 0; t < targets.extent(0); ++t) {
        require(targets[t] == ignore || (targets[t] >= 0 && targets[t] < classes), "cross_entropy", "targets",
                "the ignored target, or ids of zero or more and below the number of logits", targets[t]);
        counted += targets[t] != ignore;
    }
    return counted;
}

/// The loss of every row into `losses`; row_done(r, largest, sum) sees each row that counts, ignored(r) the others.
template <class A, class Logits, class Targets, class Done, class Ignored>
cross_entropy_result<A> each_loss(context<cpu>& ctx, const Logits& logits, const Targets& targets, std::int32_t ignore,
                                  index_t counted, Done row_done, Ignored ignored) {
    const index_t rows = logits.extent(0), n = logits.extent(1);
    if (counted == 0 && rows == 0) return {0, 0};
    A* const losses = reinterpret_cast<A*>(ctx.workspace(static_cast<std::size_t>(rows) * sizeof(A)));
    on_cpu::share_out(ctx, rows, 20 * n, [&](index_t first, index_t last) {
        for (index_t r = first; r < last; ++r) {
            if (targets[r] == ignore) {
                losses[r] = 0;
                ignored(r);
                continue;
            }
            const auto row = on_cpu::sum_exponentials<A>(n, logits.row(r));
            losses[r] = gatefold::log(row.sum) - (static_cast<A>(logits.row(r)[targets[r]]) - row.largest);
            row_done(r, row);
        }
    });
    const A* const each = losses;
    const A total = on_cpu::sum_of_row<A>(
        rows, [](on_cpu::vec<A> sum, on_cpu::vec<A> v) { return on_cpu::add(sum, v); }, each);
    return {counted > 0 ? total / static_cast<A>(counted) : A{0}, counted};
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// The mean of −log softmax(logits)[target] over the tokens whose target is not `ignore`.
///
/// Shapes: logits [T, V], targets [T].
/// Throws: argument_error where extents differ, memory is missing, or a target is neither `ignore` nor in [0, V).
template <readable Logits, host_array_of<const std::int32_t> Targets>
auto cross_entropy(context<cpu>& ctx, const Logits& logits, const Targets& targets,
                   std::int32_t ignore = ignored_target) {
    static_assert(detail::view_type<const Logits&>::rank == 2 && detail::view_type<const Targets&>::rank == 1 &&
                      detail::may_match(detail::known_extent<const Logits>(0), detail::known_extent<const Targets>(0)),
                  "gatefold::cross_entropy: logits must be [T, V] and targets [T]");
    using A = accumulate_t<detail::element_of<const Logits&>>;
    const auto x = detail::input(logits, "cross_entropy", "logits");
    const auto ids = detail::input(targets, "cross_entropy", "targets");
    detail::check_extent(ids, 0, x.extent(0), "cross_entropy", "targets");
    const index_t counted = detail::count_targets(ids, x.extent(1), ignore);
    return detail::each_loss<A>(
        ctx, x, ids, ignore, counted, [](index_t, const auto&) {}, [](index_t) {});
}

/// The same, and the gradient: dlogits = factor · (softmax(logits) − [target]) / counted tokens, zero for ignored ones.
///
/// Shapes: logits and dlogits [T, V], targets [T]; dlogits may be logits.
/// Throws: argument_error where extents differ, memory is missing, a target is neither `ignore` nor in [0, V), or
///         dlogits overlaps logits in part or targets at all; dlogits is untouched then.
template <readable Logits, host_array_of<const std::int32_t> Targets, writable Dlogits>
auto cross_entropy(context<cpu>& ctx, const Logits& logits, const Targets& targets, Dlogits&& dlogits,
                   std::int32_t ignore = ignored_target, double factor = 1) {
    static_assert(detail::view_type<const Logits&>::rank == 2 && detail::view_type<const Targets&>::rank == 1 &&
                      detail::may_match(detail::known_extent<const Logits>(0), detail::known_extent<const Targets>(0)),
                  "gatefold::cross_entropy: logits must be [T, V] and targets [T]");
    static_assert(detail::shapes_may_match<const Logits, Dlogits>(),
                  "gatefold::cross_entropy: dlogits must have the shape of logits");
    static_assert(detail::sums_alike<const Logits, Dlogits>,
                  "gatefold::cross_entropy: double does not mix with other types");
    namespace simd = detail::on_cpu;
    using A = accumulate_t<detail::element_of<const Logits&>>;
    using V = simd::vec<A>;
    const auto x = detail::input(logits, "cross_entropy", "logits");
    const auto ids = detail::input(targets, "cross_entropy", "targets");
    const auto dx = detail::output(dlogits, "cross_entropy", "dlogits");
    detail::check_extent(ids, 0, x.extent(0), "cross_entropy", "targets");
    detail::check_shape(dx, x, "cross_entropy", "dlogits");
    detail::check_same_or_apart(dx, x, "cross_entropy", "dlogits");
    detail::check_apart(dx, ids, "cross_entropy", "dlogits");
    const index_t n = x.extent(1), counted = detail::count_targets(ids, n, ignore);
    const A share = counted > 0 ? static_cast<A>(factor) / static_cast<A>(counted) : A{0};
    return detail::each_loss<A>(
        ctx, x, ids, ignore, counted,
        [&](index_t r, const auto& row) {
            const V shift = simd::broadcast(row.largest), sum = simd::broadcast(row.sum);
            const auto probability = [=](V v) { return V{gatefold::exp(V{v.raw - shift.raw}).raw / sum.raw}; };
            // The target's element is kept back, so that p − 1 is rounded once however narrow dlogits is.
            const A target = static_cast<A>(x.row(r)[ids[r]]);
            simd::map<A>(
                n, [&](V v) { return simd::mul(simd::broadcast(share), probability(v)); }, dx.row(r), x.row(r));
            dx.row(r)[ids[r]] = static_cast<detail::element_of<Dlogits&>>(
                gatefold::mul(share, probability(simd::broadcast(target))[0] - A{1}));
        },
        [&](index_t r) {
            for (index_t i = 0; i < n; ++i) dx.row(r)[i] = detail::element_of<Dlogits&>{};
        });
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
