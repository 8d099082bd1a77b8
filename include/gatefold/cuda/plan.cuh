// The plan on CUDA: pairs (token, slot) sorted by expert, stable, and the tile list of the grouped products.
//
//     ids[n] ──> offsets[N+1], rows[n], place[n], tiles[], tile_count
//
// Ranks come from cub::BlockRadixRankMatch: equal ids of a block in the order of their pairs. n <= 1024: one block,
// which is the router's last one where there is a router. Beyond: `scatter_pairs`, one launch, from counts per group of
// pairs that the router (or `count_pairs`) left; its extra block writes offsets and tiles. Rows are written in the
// order of ranks, in which those of an expert are neighbours. Integers only, so the bits do not depend on the order of
// blocks. Pairs with id -1 sort behind all experts and get no row.
//
// N up to 1023 reaches CUB's ranks (its counters take 36 of 48 KB then); beyond, warps take turns on one counter per
// expert.
#pragma once

#include <cub/block/block_radix_rank.cuh>

#include <gatefold/cuda/device/device.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// Where the plan goes.
struct plan_output {
    std::int32_t *offsets, *rows, *place;
    tile* tiles = nullptr;  ///< null: no list
    std::int32_t* tile_count = nullptr;
    int tile_rows = 0;
};

/// Threads of a planning block, and the pairs it ranks at once.
inline constexpr int plan_threads = 256, pairs_at_once = 1024;
/// Pairs of a group that `count_pairs` counts.
inline constexpr int counted_pairs = 1024;
/// The most blocks that scatter: each reads the counts of all groups.
inline constexpr int most_scatter_blocks = 32;

template <int N>
inline constexpr bool ranked_by_cub = N <= 1023;

/// Shared memory of a planning block.
template <int N>
struct plan_memory {
    static constexpr int bits = bits_of<N + 1>;
    using ranks = cub::BlockRadixRankMatch<plan_threads, bits, false>;
    struct counters {
        std::int32_t next[std::size_t{N}];
    };
    /// Pairs in the order of their ranks, with their rows: neighbours there have neighbouring rows.
    struct sorted_pairs {
        std::int32_t row[std::size_t{pairs_at_once}];
        std::uint16_t pair[std::size_t{pairs_at_once}];
    };
    union {
        std::conditional_t<ranked_by_cub<N>, typename ranks::TempStorage, counters> ranking;
        std::conditional_t<ranked_by_cub<N>, sorted_pairs, counters> sorted;
    };
    std::int32_t start[std::size_t{N + 1}];  ///< first row of each expert, or of this block's part of it
    alignas(16) std::int32_t scratch[36];
    std::int32_t classes[32];
    std::int32_t tiles_before[std::size_t{N + 1}];
    std::uint16_t order[std::size_t{N}];  ///< experts, heaviest first
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// Lanes of the warp whose value is like mine.
__device__ __forceinline__ unsigned same_value(int value) { return __match_any_sync(all_lanes, value); }

/// Gives rows to the pairs [begin, begin + count), count <= pairs_at_once: rows of expert e continue at start(e).
/// Leaves in shared.start what comes next. `id_of(pair)` is the expert or -1.
template <int N, class IdOf>
__device__ __forceinline__ void place_pairs(plan_memory<N>& shared, index_t begin, int count, IdOf id_of,
                                            const plan_output& out, bool fresh) {
    constexpr int each = pairs_at_once / plan_threads;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const int first = warp * 32 * each + lane;  // a warp holds neighbouring pairs: its ranks are in memory order
    std::int32_t ids[each];
    GATEFOLD_UNROLL
    for (int j = 0; j < each; ++j) ids[j] = first + 32 * j < count ? id_of(begin + first + 32 * j) : -1;

    if constexpr (ranked_by_cub<N>) {
        using memory = plan_memory<N>;
        using ranks = typename memory::ranks;
        constexpr int bins = ranks::BINS_TRACKED_PER_THREAD;
        unsigned keys[each];
        int rank[each], starts[bins];
        GATEFOLD_UNROLL
        for (int j = 0; j < each; ++j) keys[j] = ids[j] < 0 ? unsigned{N} : static_cast<unsigned>(ids[j]);
        ranks(shared.ranking).RankKeys(keys, rank, cub::BFEDigitExtractor<unsigned>(0, memory::bits), starts);
        __syncthreads();
        // From ranks in the block to rows: where a block's expert begins among its ranks, and among the rows.
        if (fresh) {
            GATEFOLD_UNROLL
            for (int b = 0; b < bins; ++b)
                if (const int e = thread * bins + b; e <= N) shared.start[e] = starts[b];
        } else {
            GATEFOLD_UNROLL
            for (int b = 0; b < bins; ++b)
                if (const int e = thread * bins + b; e <= N) shared.tiles_before[e] = starts[b];
        }
        __syncthreads();
        GATEFOLD_UNROLL
        for (int j = 0; j < each; ++j) {
            if (first + 32 * j >= count) continue;
            std::int32_t row = -1;
            if (ids[j] >= 0) {
                row = fresh ? rank[j] : shared.start[ids[j]] + rank[j] - shared.tiles_before[ids[j]];
                if (!fresh) shared.sorted.row[rank[j]] = row;
                shared.sorted.pair[rank[j]] = static_cast<std::uint16_t>(first + 32 * j);
            }
            out.place[begin + first + 32 * j] = row;
        }
        __syncthreads();
        const int kept = fresh ? shared.start[N] : shared.tiles_before[N];
        for (int r = thread; r < kept; r += plan_threads)
            out.rows[fresh ? r : shared.sorted.row[r]] = static_cast<std::int32_t>(begin + shared.sorted.pair[r]);
        if (!fresh)
            for (int e = thread; e < N; e += plan_threads)
                shared.start[e] += shared.tiles_before[e + 1] - shared.tiles_before[e];
        __syncthreads();
    } else {
        // Warps in turn; within one, lanes of equal id by their number.
        if (fresh) {
            for (int e = thread; e <= N; e += plan_threads) shared.start[e] = 0;
            __syncthreads();
            GATEFOLD_UNROLL
            for (int j = 0; j < each; ++j)
                if (ids[j] >= 0) atomicAdd(&shared.start[ids[j]], 1);
            int carry = 0;
            for (int e0 = 0; e0 < N + 1; e0 += plan_threads) {
                const int e = e0 + thread;
                __syncthreads();
                const int own = e < N ? shared.start[e] : 0;
                int total;
                const int before = block_exclusive<plan_threads>(own, shared.scratch, total);
                if (e <= N) shared.start[e] = carry + before;
                carry += total;
            }
            __syncthreads();
        }
        for (int e = thread; e < N; e += plan_threads) shared.ranking.next[e] = shared.start[e];
        __syncthreads();
        for (int turn = 0; turn < plan_threads / 32; ++turn) {
            if (turn == warp) {
                for (int j = 0; j < each; ++j) {
                    const unsigned peers = same_value(ids[j]);
                    const int rank = __popc(peers & ((1u << lane) - 1u));
                    const std::int32_t row = ids[j] < 0 ? -1 : shared.ranking.next[ids[j]] + rank;
                    __syncwarp();
                    if (ids[j] >= 0 && (peers >> lane) == 1u) shared.ranking.next[ids[j]] = row + 1;
                    __syncwarp();
                    if (first + 32 * j >= count) continue;
                    const index_t pair = begin + first + 32 * j;
                    out.place[pair] = row;
                    if (row >= 0) out.rows[row] = static_cast<std::int32_t>(pair);
                }
            }
            __syncthreads();
        }
        if (!fresh) {
            for (int e = thread; e < N; e += plan_threads) shared.start[e] = shared.ranking.next[e];
            __syncthreads();
        }
    }
}

/// The tile list from the offsets in shared.start[0 .. N]: heaviest experts first, then by number; tiles of an expert
/// side by side. `experts` of the choices have weights, the others make no tiles.
template <int N>
__device__ __forceinline__ void list_tiles(plan_memory<N>& shared, int experts, const plan_output& out) {
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
    const auto tiles_of = [&](int e) {
        return e < experts ? (shared.start[e + 1] - shared.start[e] + out.tile_rows - 1) / out.tile_rows : 0;
    };
    if (thread < 32) shared.classes[lane] = 0;
    __syncthreads();
    for (int e = thread; e < N; e += plan_threads) atomicAdd(&shared.classes[31 - weight_class(tiles_of(e))], 1);
    __syncthreads();
    if (thread < 32) {
        const int own = shared.classes[lane];
        int sum = own;
        GATEFOLD_UNROLL
        for (int d = 1; d < 32; d *= 2) {
            const int up = __shfl_up_sync(all_lanes, sum, static_cast<unsigned>(d));
            if (lane >= d) sum += up;
        }
        shared.classes[lane] = sum - own;
        __syncwarp();
        // One warp orders the experts, 32 at a time: N is small, and stability is what the order is for.
        for (int e0 = 0; e0 < N; e0 += 32) {
            const int e = e0 + lane, c = e < N ? 31 - weight_class(tiles_of(e)) : -1;
            const unsigned peers = same_value(c);
            const int rank = __popc(peers & ((1u << lane) - 1u)), at = c < 0 ? 0 : shared.classes[c] + rank;
            __syncwarp();
            if (c >= 0) {
                if ((peers >> lane) == 1u) shared.classes[c] = at + 1;
                shared.order[at] = static_cast<std::uint16_t>(e);
            }
            __syncwarp();
        }
    }
    int carry = 0;
    for (int r0 = 0; r0 < N; r0 += plan_threads) {
        __syncthreads();
        const int r = r0 + thread, own = r < N ? tiles_of(shared.order[r]) : 0;
        int total;
        const int before = block_exclusive<plan_threads>(own, shared.scratch, total);
        if (r < N) shared.tiles_before[r] = carry + before;
        carry += total;
    }
    if (thread == 0) {
        shared.tiles_before[N] = carry;
        *out.tile_count = carry;
    }
    __syncthreads();
    // By tile, not by expert: one heavy expert must not keep a single thread busy.
    for (int i = thread; i < carry; i += plan_threads) {
        int low = 0, high = N;  // the largest r with tiles_before[r] <= i
        while (high - low > 1) {
            const int middle = (low + high) / 2;
            if (shared.tiles_before[middle] <= i)
                low = middle;
            else
                high = middle;
        }
        const int e = shared.order[low], row = shared.start[e] + (i - shared.tiles_before[low]) * out.tile_rows;
        const int left = shared.start[e + 1] - row;
        out.tiles[i] = {e, row, left < out.tile_rows ? left : out.tile_rows, 0};
    }
}

/// The whole plan of n <= pairs_at_once pairs by the calling block.
template <int N, class IdOf>
__device__ __forceinline__ void plan_by_block(plan_memory<N>& shared, int n, int experts, IdOf id_of,
                                              const plan_output& out) {
    place_pairs<N>(shared, 0, n, id_of, out, true);
    for (int e = static_cast<int>(threadIdx.x); e <= N; e += plan_threads) out.offsets[e] = shared.start[e];
    if (out.tiles) list_tiles<N>(shared, experts, out);
}

/// The expert of a pair, read past the first-level cache: another block may have written it.
struct expert_of_pair {
    const std::int32_t* ids;
    const std::uint8_t* kept;  ///< null: every pair
    __device__ __forceinline__ std::int32_t operator()(index_t pair) const {
        return kept && __ldcg(kept + pair) == 0 ? -1 : __ldcg(ids + pair);
    }
};

template <int N>
__global__ void __launch_bounds__(plan_threads)
    plan_in_one_block(const expert_of_pair id_of, int n, int experts, const plan_output out) {
    __shared__ plan_memory<N> shared;
    plan_by_block<N>(shared, n, experts, id_of, out);
}

/// counts[b][e]: pairs of expert e in group b.
template <int N>
__global__ void __launch_bounds__(plan_threads)
    count_pairs(const expert_of_pair id_of, index_t pairs, std::int32_t* __restrict__ counts) {
    __shared__ std::int32_t sums[std::size_t{N}];
    for (int e = static_cast<int>(threadIdx.x); e < N; e += plan_threads) sums[e] = 0;
    __syncthreads();
    const index_t begin = static_cast<index_t>(blockIdx.x) * counted_pairs;
    const index_t end = begin + counted_pairs < pairs ? begin + counted_pairs : pairs;
    for (index_t i = begin + threadIdx.x; i < end; i += plan_threads) {
        const std::int32_t e = id_of(i);
        if (e >= 0) atomicAdd(&sums[e], 1);
    }
    __syncthreads();
    for (int e = static_cast<int>(threadIdx.x); e < N; e += plan_threads)
        counts[static_cast<index_t>(blockIdx.x) * N + e] = sums[e];
}

/// The plan from counts of `groups` groups of `group_pairs` pairs each. Block b places the pairs of `each` groups; the
/// last block writes offsets and tiles.
template <int N>
__global__ void __launch_bounds__(plan_threads)
    scatter_pairs(const expert_of_pair id_of, index_t pairs, int group_pairs, int groups, int each, int experts,
                  const std::int32_t* __restrict__ counts, const plan_output out) {
    __shared__ plan_memory<N> shared;
    const int thread = static_cast<int>(threadIdx.x);
    const bool lists = blockIdx.x == gridDim.x - 1;
    const int first_group = static_cast<int>(blockIdx.x) * each;
    int carry = 0;
    for (int e0 = 0; e0 <= N; e0 += plan_threads) {
        const int e = e0 + thread;
        int before = 0, sum = 0, total;
        if (e < N)
            for (int b = 0; b < groups; ++b) {
                const int c = counts[static_cast<index_t>(b) * N + e];
                before += b < first_group ? c : 0;
                sum += c;
            }
        const int start = block_exclusive<plan_threads>(sum, shared.scratch, total);
        if (e <= N) shared.start[e] = carry + start + (lists ? 0 : before);
        carry += total;
    }
    __syncthreads();
    if (lists) {
        for (int e = thread; e <= N; e += plan_threads) out.offsets[e] = shared.start[e];
        if (out.tiles) list_tiles<N>(shared, experts, out);
        return;
    }
    const index_t begin = static_cast<index_t>(first_group) * group_pairs;
    const index_t whole = begin + static_cast<index_t>(each) * group_pairs, end = whole < pairs ? whole : pairs;
    for (index_t at = begin; at < end; at += pairs_at_once) {
        const int n = end - at < pairs_at_once ? static_cast<int>(end - at) : pairs_at_once;
        place_pairs<N>(shared, at, n, id_of, out, false);
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
