// Sort by expert written in Thrust: the same plan on any Thrust device system (CPP, OMP, TBB, CUDA), and iterators over
// tensors for algorithms of one's own.
//
//     ids ── empty slots last ──> keys ── stable_sort_by_key ──> rows ── lower_bound ──> offsets ── scatter ──> place
//
// Not part of the umbrella: Thrust chooses its device system by a definition of the build (THRUST_DEVICE_SYSTEM), which
// a header must not set. Works with Thrust 1.17 and with CCCL 3.
#pragma once

#include <cstdint>

#include <thrust/binary_search.h>
#include <thrust/copy.h>
#include <thrust/device_ptr.h>
#include <thrust/execution_policy.h>
#include <thrust/fill.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/scatter.h>
#include <thrust/sequence.h>
#include <thrust/sort.h>
#include <thrust/transform.h>

#include <gatefold/core/error.hpp>
#include <gatefold/core/view.hpp>
#include <gatefold/moe/plan.hpp>

namespace gatefold::inline v0::interop {

/// Iterators over the elements of a contiguous view, for thrust algorithms with the device policy.
template <backend B, class T, int... E>
thrust::device_ptr<T> begin(const basic_view<B, T, E...>& v) {
    return thrust::device_ptr<T>(v.data());
}
template <backend B, class T, int... E>
thrust::device_ptr<T> end(const basic_view<B, T, E...>& v) {
    return thrust::device_ptr<T>(v.data()) + v.size();
}

/// Empty slots sort behind every expert.
struct empty_last {
    std::int32_t choices;
    GATEFOLD_HD std::int32_t operator()(std::int32_t id) const { return id < 0 ? choices : id; }
};
/// Whether a sort key is an expert.
struct is_expert {
    std::int32_t choices;
    GATEFOLD_HD bool operator()(std::int32_t key) const { return key < choices; }
};

/// Builds the plan of `ids` [T * S] with Thrust; it equals the one that make_plan builds.
///
/// `policy` is an execution policy such as thrust::device; all memory must be what the policy's system can reach.
/// `keys` [T * S] is scratch. Rows past offsets[choices] hold the pairs that go to no expert. Throws: argument_error
/// for extents that do not fit; what Thrust throws.
template <class Policy, backend B>
void make_plan(const Policy& policy, basic_view<B, const std::int32_t, dyn> ids, int choices, const plan_view<B>& out,
               basic_view<B, std::int32_t, dyn> keys) {
    const index_t pairs = ids.extent(0);
    require(pairs == out.tokens * out.slots, "interop::make_plan", "ids", out.tokens * out.slots, pairs);
    require(keys.extent(0) == pairs, "interop::make_plan", "keys", pairs, keys.extent(0));
    require(out.offsets.extent(0) == choices + 1, "interop::make_plan", "offsets", choices + 1, out.offsets.extent(0));
    require(out.rows.extent(0) == pairs, "interop::make_plan", "rows", pairs, out.rows.extent(0));
    require(out.place.extent(0) == pairs, "interop::make_plan", "place", pairs, out.place.extent(0));

    const auto first_key = begin(keys), last_key = end(keys), rows = begin(out.rows), place = begin(out.place);
    thrust::transform(policy, begin(ids), end(ids), first_key, empty_last{choices});
    thrust::sequence(policy, rows, rows + pairs);
    thrust::stable_sort_by_key(policy, first_key, last_key, rows);
    const thrust::counting_iterator<std::int32_t> zero(0);
    thrust::lower_bound(policy, first_key, last_key, zero, zero + choices + 1, begin(out.offsets));
    thrust::fill(policy, place, place + pairs, std::int32_t{-1});
    thrust::scatter_if(policy, zero, zero + static_cast<std::int32_t>(pairs), rows, first_key, place,
                       is_expert{choices});
}

}  // namespace gatefold::inline v0::interop
