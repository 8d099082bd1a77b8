#include "probe.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <fstream>
#include <limits>
#include <map>
#include <string>

#include <unistd.h>
#if defined(__AMX_BF16__)
#include <sys/syscall.h>
#endif

#include <gatefold/core/context.hpp>
#include <gatefold/cpu/simd/vec.hpp>

namespace bench {
namespace {

namespace simd = gatefold::detail::on_cpu;
using gatefold::index_t;

// Enough chains to hide the latency of any multiply-add; a few registers stay free for the operands.
constexpr int chains = simd::vector_registers * 3 / 4;

/// Makes the compiler compute a value that nobody uses.
template <class R>
GATEFOLD_INLINE void consume(const R& raw) {
#if defined(__x86_64__)
    __asm__ volatile("" ::"x"(raw));
#else
    __asm__ volatile("" ::"m"(raw));
#endif
}

/// Chains of fused multiply-adds of float in registers. Returns their operations.
GATEFOLD_NOINLINE double multiply_add(index_t steps) {
    simd::vec<float> sums[chains];
    const auto factor = simd::broadcast<float>(0.999f), addend = simd::broadcast<float>(1e-3f);
    for (int i = 0; i < chains; ++i) sums[i] = simd::broadcast<float>(static_cast<float>(i));
    for (index_t step = 0; step < steps; ++step) {
        GATEFOLD_UNROLL
        for (int i = 0; i < chains; ++i) sums[i] = simd::fma(sums[i], factor, addend);
    }
    for (int i = 0; i < chains; ++i) consume(sums[i].raw);
    return 2.0 * chains * simd::lanes<float> * static_cast<double>(steps);
}

#if GATEFOLD_AVX512_BF16
/// The same with the dot product of bf16 pairs.
GATEFOLD_NOINLINE double dot_pairs(index_t steps) {
    __m512 sums[chains];
    const auto factor = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f80)),
               other = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3c00));
    for (int i = 0; i < chains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
    for (index_t step = 0; step < steps; ++step) {
        GATEFOLD_UNROLL
        for (int i = 0; i < chains; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], factor, other);
    }
    for (int i = 0; i < chains; ++i) consume(sums[i]);
    return 4.0 * chains * simd::lanes<float> * static_cast<double>(steps);
}
#endif

#if GATEFOLD_AMX
/// Whether the kernel lets this process use tiles.
bool tiles_permitted() {
    constexpr long request_permission = 0x1023, tile_data = 18;
    static const bool permitted = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
    return permitted;
}

/// Four products of tiles in turn, operands in tiles.
GATEFOLD_NOINLINE double multiply_tiles(index_t steps) {
    struct alignas(64) {
        std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
        std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shape;
    // Random numbers: the unit's clock depends on what it multiplies, and zeros would flatter it.
    alignas(64) std::uint16_t operands[4 * 512];
    std::uint32_t state = 1;
    for (std::uint16_t& x : operands) {
        state = state * 1664525u + 1013904223u;
        x = static_cast<std::uint16_t>(0x3c00u + (state >> 8) % 0x380u + (state >> 31 << 15));
    }
    const long stride = 64;
    __asm__ volatile("ldtilecfg %0" ::"m"(shape) : "memory");
    __asm__ volatile("tilezero %%tmm0\n tilezero %%tmm1\n tilezero %%tmm2\n tilezero %%tmm3" ::: "memory");
    __asm__ volatile(
        "tileloadd (%0,%4,1), %%tmm4\n tileloadd (%1,%4,1), %%tmm5\n"
        "tileloadd (%2,%4,1), %%tmm6\n tileloadd (%3,%4,1), %%tmm7" ::"r"(operands),
        "r"(operands + 512), "r"(operands + 1024), "r"(operands + 1536), "r"(stride)
        : "memory");
    for (index_t step = 0; step < steps; ++step)
        __asm__ volatile(
            "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n tdpbf16ps %%tmm7, %%tmm4, %%tmm1\n"
            "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n tdpbf16ps %%tmm7, %%tmm5, %%tmm3" ::
                : "memory");
    __asm__ volatile("tilerelease" ::: "memory");
    return 4.0 * 16384 * static_cast<double>(steps);
}
#endif

using word = simd::unsigned_vec<std::uint64_t, simd::vector_bytes / 8>;

GATEFOLD_INLINE void read_line(const std::byte* p, word (&seen)[4]) {
    constexpr int words = 4;
    GATEFOLD_UNROLL
    for (int i = 0; i < words; ++i) seen[i] |= reinterpret_cast<const word*>(p)[i];
}

/// Reads `bytes` as four streams a quarter apart, which hardware prefetchers follow, or as one that asks ahead: which
/// is faster depends on the machine.
GATEFOLD_NOINLINE void read_memory(const std::byte* from, index_t bytes, bool streams) {
    constexpr index_t block = 4 * simd::vector_bytes, ahead = 4096;
    word seen[4] = {};
    if (streams) {
        const index_t quarter = bytes / 4;
        for (index_t i = 0; i + block <= quarter; i += block)
            for (int s = 0; s < 4; ++s) read_line(from + s * quarter + i, seen);
    } else {
        for (index_t i = 0; i + block <= bytes; i += block) {
            for (index_t line = 0; line < block; line += 64) __builtin_prefetch(from + i + ahead + line);
            read_line(from + i, seen);
        }
    }
    for (const word& w : seen) consume(w);
}

/// Operations (or bytes) a second of the fastest of a few runs of body(part) on every thread.
template <class Body>
double best_rate(gatefold::context<gatefold::cpu>& ctx, int repetitions, Body body) {
    double best = 0;
    for (int r = 0; r < repetitions; ++r) {
        double amounts[64] = {};
        const double begin = seconds(ctx.threads());
        ctx.parallel(ctx.threads(), [&](int part) { amounts[part] = body(part); });
        const double took = seconds(ctx.threads()) - begin;
        double amount = 0;
        for (const double a : amounts) amount += a;
        best = (std::max)(best, amount / took);
    }
    return best;
}

double arithmetic_rate(unit arithmetic, gatefold::context<gatefold::cpu>& ctx, int repetitions) {
    constexpr index_t steps = 100000;
    double best = best_rate(ctx, repetitions, [](int) { return multiply_add(steps); });
#if GATEFOLD_AVX512_BF16
    if (arithmetic == unit::bf16)
        best = (std::max)(best, best_rate(ctx, repetitions, [](int) { return dot_pairs(steps); }));
#endif
#if GATEFOLD_AMX
    if (arithmetic == unit::bf16 && tiles_permitted())
        best = (std::max)(best, best_rate(ctx, repetitions, [](int) { return multiply_tiles(steps / 2); }));
#endif
    static_cast<void>(arithmetic);
    return best;
}

double memory_rate(gatefold::context<gatefold::cpu>& ctx) {
    constexpr index_t most = index_t{256} << 20, slack = 8192;
    const auto cache = static_cast<index_t>(last_level_cache());
    static const index_t bytes = (std::max)(most, (std::min)(2 * cache, 4 * most));
    static gatefold::buffer<std::byte> memory = [] {
        gatefold::buffer<std::byte> fresh(bytes + slack);
        std::memset(fresh.data(), 1, fresh.bytes());
        return fresh;
    }();
    static index_t place = 0;  // successive runs read successive pieces where the cache could hold one

    const index_t mine = most / ctx.threads() / 4096 * 4096;
    double best = 0;
    for (const bool streams : {false, true, false, true}) {
        const std::byte* from = memory.data() + place;
        place = place + 2 * most <= bytes ? place + most : 0;
        best = (std::max)(best, best_rate(ctx, 1, [&](int part) {
                              read_memory(from + part * mine, mine, streams);
                              return static_cast<double>(mine);
                          }));
    }
    return best;
}

}  // namespace

double seconds(int threads) {
    timespec t;
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

std::size_t last_level_cache() {
    static const std::size_t bytes = [] {
        // What this machine's cores share: processors report the cache of the whole package to virtual machines.
        std::size_t kib = 0;
        if (std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index3/size"); file >> kib) return kib << 10;
        const long known = sysconf(_SC_LEVEL3_CACHE_SIZE);
        return known > 0 ? static_cast<std::size_t>(known) : std::size_t{32} << 20;
    }();
    return bytes;
}

double free_memory() {
    std::ifstream file("/proc/meminfo");
    for (std::string word; file >> word;)
        if (double kib = 0; word == "MemAvailable:" && file >> kib) return 1024 * kib;
    return std::numeric_limits<double>::infinity();
}

rates probe(unit arithmetic, int threads) {
    struct reading {
        double rate = 0, taken = -1;
    };
    static std::map<std::pair<unit, int>, reading> units;
    static std::map<int, reading> memory;
    constexpr double lasts = 0.5;
    const double now = seconds(0);
    reading &gflops = units[{arithmetic, threads}], &dram = memory[threads];
    gatefold::context<gatefold::cpu> ctx(threads);
    if (gflops.taken < 0 || now - gflops.taken > lasts)
        gflops = {(std::max)(gflops.rate, 1e-9 * arithmetic_rate(arithmetic, ctx, gflops.taken < 0 ? 10 : 3)), now};
    if (dram.taken < 0 || now - dram.taken > lasts) {
        dram = {1e-9 * memory_rate(ctx), now};
        // Several threads read no slower than one: less only says that they did not all get a core.
        if (threads > 1) dram.rate = (std::max)(dram.rate, probe(arithmetic, 1).dram_gbs);
    }
    return {gflops.rate, dram.rate};
}

}  // namespace bench
