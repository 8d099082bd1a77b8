// The n-th largest of many words by one block: what capacity and expert choice ask for. Radix selection, eight bits at
// a time from the top; the words are read once per digit.
#pragma once

#include <gatefold/cuda/plan.cuh>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// Shared memory of a selecting block of plan_threads threads.
struct select_memory {
    std::int32_t bins[256];
    alignas(16) std::int32_t scratch[36];
    std::int32_t digit, left;
};
static_assert(plan_threads == 256, "a thread per digit");

/// The least word that is still among the `wanted` largest, and how many of the words equal to it are.
template <class Word>
struct least_chosen {
    Word word;
    int left;
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// Among the i in [0, n) with `takes_part(i)`, of which there are at least `wanted` >= 1. Words have `Bits` bits.
template <int Bits, class Word, class TakesPart, class WordOf>
__device__ __forceinline__ least_chosen<Word> select_largest(select_memory& shared, int n, int wanted,
                                                             TakesPart takes_part, WordOf word_of) {
    const int thread = static_cast<int>(threadIdx.x);
    Word prefix = 0;
    int left = wanted;
    for (int shift = (Bits - 1) / 8 * 8; shift >= 0; shift -= 8) {
        shared.bins[thread] = 0;
        __syncthreads();
        for (int i = thread; i < n; i += plan_threads) {
            if (!takes_part(i)) continue;
            const Word word = word_of(i);
            // Two shifts: one by the whole width would be undefined.
            if ((word >> shift >> 8) == (prefix >> shift >> 8))
                atomicAdd(&shared.bins[static_cast<int>(word >> shift & Word(255))], 1);
        }
        __syncthreads();
        const int own = shared.bins[255 - thread];
        int total;
        const int before = block_exclusive<plan_threads>(own, shared.scratch, total);
        if (before < left && left <= before + own) {
            shared.digit = 255 - thread;
            shared.left = left - before;
        }
        __syncthreads();
        prefix |= static_cast<Word>(shared.digit) << shift;
        left = shared.left;
        __syncthreads();
    }
    return {prefix, left};
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
