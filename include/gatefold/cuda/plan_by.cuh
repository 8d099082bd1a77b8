// The plan by the sorts of CUB and Thrust, behind the interface of make_plan. Not part of gatefold.hpp: their headers
// take longer to compile than everything else here.
//
//     make_plan<L>(ctx, plan_by::radix_sort, ids, plan)     cub::DeviceRadixSort of (expert, pair)
//     make_plan<L>(ctx, plan_by::thrust_sort, ids, plan)    thrust::stable_sort_by_key, then lower_bound
//
// The plan is that of make_plan<L>(ctx, ids, plan), which needs one launch up to 1024 pairs and two beyond.
#pragma once

#include <new>

#include <cub/device/device_radix_sort.cuh>
#include <thrust/binary_search.h>
#include <thrust/execution_policy.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/sort.h>

#include <gatefold/gatefold.hpp>

namespace gatefold::inline v0 {

/// Whose sort makes a plan.
namespace plan_by {
struct radix_sort_t {};
struct thrust_sort_t {};
inline constexpr radix_sort_t radix_sort{};
inline constexpr thrust_sort_t thrust_sort{};
}  // namespace plan_by

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// What is sorted: experts, N where a pair goes to none, and the numbers of the pairs.
template <int N>
__global__ void __launch_bounds__(256)
    number_pairs(const expert_of_pair id_of, index_t pairs, std::uint32_t* experts, std::int32_t* numbers) {
    const index_t pair = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x;
    if (pair >= pairs) return;
    const std::int32_t e = id_of(pair);
    experts[pair] = e < 0 ? unsigned{N} : static_cast<std::uint32_t>(e);
    numbers[pair] = static_cast<std::int32_t>(pair);
}

/// rows and place from the sorted pairs; offsets too where they are asked for.
template <int N>
__global__ void __launch_bounds__(256) place_sorted(const std::uint32_t* experts, const std::int32_t* numbers,
                                                    index_t pairs, const plan_output out, bool counts) {
    const index_t r = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x;
    if (r >= pairs) return;
    const auto e = static_cast<int>(experts[r]);
    const std::int32_t pair = numbers[r], row = static_cast<std::int32_t>(r);
    out.place[pair] = e < N ? row : -1;
    if (e < N) out.rows[r] = pair;
    if (!counts) return;
    for (int k = r == 0 ? 0 : static_cast<int>(experts[r - 1]) + 1; k <= e; ++k) out.offsets[k] = row;
    if (r + 1 == pairs)
        for (int k = e + 1; k <= N; ++k) out.offsets[k] = row + 1;
}

/// Hands a sort its temporary memory out of the workspace.
class workspace_memory {
public:
    using value_type = char;
    workspace_memory(std::byte* at, std::size_t bytes) : at_(at), left_(bytes) {}
    char* allocate(std::ptrdiff_t count) {
        const std::size_t bytes = round_up(static_cast<std::size_t>(count), std::size_t{256});
        if (bytes > left_) GATEFOLD_THROW(std::bad_alloc());
        char* p = reinterpret_cast<char*>(at_);
        at_ += bytes;
        left_ -= bytes;
        return p;
    }
    void deallocate(char*, std::size_t) {}

private:
    std::byte* at_;
    std::size_t left_;
};

/// The workspace of a sorted plan.
struct sorted_memory {
    std::uint32_t *experts, *sorted_experts;
    std::int32_t *numbers, *sorted_numbers;
    std::byte* temporary;

    sorted_memory(carver& memory, index_t pairs, std::size_t bytes)
        : experts(memory.take<std::uint32_t>(pairs)),
          sorted_experts(memory.take<std::uint32_t>(pairs)),
          numbers(memory.take<std::int32_t>(pairs)),
          sorted_numbers(memory.take<std::int32_t>(pairs)),
          temporary(memory.take<std::byte>(static_cast<index_t>(bytes))) {}
};

template <int N, class Method>
void make_sorted_plan(context<cuda>& ctx, Method, const expert_of_pair& id_of, index_t pairs, const plan_output& out) {
    if (pairs == 0) {
        check(cudaMemsetAsync(out.offsets, 0, (N + 1) * sizeof(std::int32_t), ctx.stream()), "make_plan");
        return;
    }
    constexpr bool by_thrust = std::is_same_v<Method, plan_by::thrust_sort_t>;
    constexpr int bits = bits_of<N + 1>;
    const auto n = static_cast<int>(pairs);
    const auto sort = [&](void* temporary, std::size_t& bytes, const sorted_memory& m) {
        check(cub::DeviceRadixSort::SortPairs(temporary, bytes, m.experts, m.sorted_experts, m.numbers,
                                              m.sorted_numbers, n, 0, bits, ctx.stream()),
              "make_plan");
    };
    std::size_t temporary = 0;
    carver count(nullptr);
    sort(nullptr, temporary, sorted_memory(count, pairs, 0));
    // Thrust sorts in place, with the other half of its buffers in temporary memory, piece by piece.
    if (by_thrust) temporary += static_cast<std::size_t>(pairs) * 16 + (std::size_t{1} << 16);
    carver size(nullptr);
    sorted_memory(size, pairs, temporary);
    carver memory(ctx.workspace(size.used()));
    const sorted_memory m(memory, pairs, temporary);
    const auto blocks = static_cast<unsigned>(ceil_div(pairs, index_t{256}));
    number_pairs<N><<<blocks, 256, 0, ctx.stream()>>>(id_of, pairs, m.experts, m.numbers);
    check_kernel("make_plan");
    if constexpr (by_thrust) {
        workspace_memory pool(m.temporary, temporary);
        const auto policy = thrust::cuda::par_nosync(pool).on(ctx.stream());
        thrust::stable_sort_by_key(policy, m.experts, m.experts + n, m.numbers);
        const thrust::counting_iterator<std::uint32_t> first(0);
        thrust::lower_bound(policy, m.experts, m.experts + n, first, first + (N + 1), out.offsets);
        place_sorted<N><<<blocks, 256, 0, ctx.stream()>>>(m.experts, m.numbers, pairs, out, false);
    } else {
        sort(m.temporary, temporary, m);
        place_sorted<N><<<blocks, 256, 0, ctx.stream()>>>(m.sorted_experts, m.sorted_numbers, pairs, out, true);
    }
    check_kernel("make_plan");
}

template <class Method>
concept plan_method = std::is_same_v<Method, plan_by::radix_sort_t> || std::is_same_v<Method, plan_by::thrust_sort_t>;

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// make_plan(ctx, ids, out, kept) by a sort of CUB or Thrust: the same plan.
///
/// Throws: as make_plan does.
template <layer_type L, detail::on_cuda::plan_method Method>
void make_plan(context<cuda>& ctx, Method method,
               std::type_identity_t<basic_view<cuda, const std::int32_t, dyn, L::slots>> ids,
               const plan_view<cuda>& out, std::type_identity_t<basic_view<cuda, const std::uint8_t, dyn>> kept = {}) {
    detail::check_plan_call<L>(ids, out, kept);
    const detail::on_cuda::call_scope scope(ctx, "make_plan");
    detail::on_cuda::check_device_memory("make_plan", "ids", ids, ctx.device());
    detail::on_cuda::check_device_memory("make_plan", "kept", kept, ctx.device());
    detail::on_cuda::check_device_plan("make_plan", out, ctx.device());
    detail::on_cuda::make_sorted_plan<L::choices>(ctx, method, {ids.data(), kept.data()}, out.tokens * out.slots,
                                                  {out.offsets.data(), out.rows.data(), out.place.data()});
    ctx.end_call("make_plan");
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
