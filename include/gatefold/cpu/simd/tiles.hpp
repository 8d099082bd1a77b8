// The matrix unit as eight tiles of 16 rows × 64 bytes: AMX, and a twin in plain code that gives the same bits, so that
// kernels written for the unit run and are tested on any machine.
//
//     multiply<C, A, B>: C[m][n] += Σ_k A[m][k] · B[k/2][n][k%2] over 32 k of bf16, in order::portable
//
// Kernels are templates over the unit. Shapes are set once per run of multiplications; every operand of a
// multiplication has to have the shape it was set to.
#pragma once

#include <cstdint>
#include <cstring>

#include <gatefold/core/dtype.hpp>
#include <gatefold/core/index.hpp>
#include <gatefold/core/math.hpp>
#include <gatefold/cpu/simd/denormals.hpp>

#if GATEFOLD_AMX && !defined(GATEFOLD_SOFTWARE_TILES) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// The unit in plain code.
class software_tiles {
public:
    /// Rows of each tile; rows are 64 bytes long.
    void configure(const int (&rows)[8]) {
        for (int i = 0; i < 8; ++i) rows_[i] = rows[i];
        std::memset(tiles_, 0, sizeof tiles_);
    }
    void release() {}

    template <int Tile>
    void zero() {
        std::memset(tiles_[Tile], 0, sizeof tiles_[Tile]);
    }
    /// Row i from `from` + i · `stride` bytes.
    template <int Tile>
    void load(const void* from, index_t stride) {
        zero<Tile>();
        for (int i = 0; i < rows_[Tile]; ++i)
            std::memcpy(tiles_[Tile][i], static_cast<const char*>(from) + i * stride, 64);
    }
    template <int Tile>
    void store(void* to, index_t stride) const {
        for (int i = 0; i < rows_[Tile]; ++i) std::memcpy(static_cast<char*>(to) + i * stride, tiles_[Tile][i], 64);
    }
    template <int C, int A, int B>
    void multiply() {
        const flush_subnormals mode;
        multiply_add(tiles_[C], tiles_[A], tiles_[B], rows_[C]);
    }

private:
    using tile = std::uint32_t[16][16];

    static GATEFOLD_NOINLINE void multiply_add(tile& c, const tile& a, const tile& b, int rows) {
        const auto low = [](std::uint32_t pair) { return bits_as<float>(pair << 16); };
        const auto high = [](std::uint32_t pair) { return bits_as<float>(pair & 0xffff0000u); };
        for (int m = 0; m < rows; ++m)
            for (int n = 0; n < 16; ++n) {
                float even = 0, odd = 0;
                for (int k = 0; k < 16; ++k) {
#if GATEFOLD_HARDWARE_FMA || !defined(__x86_64__)
                    even = gatefold::fma(low(a[m][k]), low(b[k][n]), even);
                    odd = gatefold::fma(high(a[m][k]), high(b[k][n]), odd);
#else
                    even = gatefold::mul(low(a[m][k]), low(b[k][n])) + even;
                    odd = gatefold::mul(high(a[m][k]), high(b[k][n])) + odd;
#endif
                }
                c[m][n] = bits_as<std::uint32_t>(bits_as<float>(c[m][n]) + (even + odd));
            }
    }

    alignas(64) tile tiles_[8];
    int rows_[8];
};

#if GATEFOLD_AMX && defined(GATEFOLD_SOFTWARE_TILES)
using machine_tiles = software_tiles;
inline bool may_use_tiles() { return true; }
#elif GATEFOLD_AMX
/// The unit of the machine. Inline assembly: the intrinsics of g++ 12 tell the compiler nothing about memory.
class hardware_tiles {
public:
    GATEFOLD_INLINE void configure(const int (&rows)[8]) {
        struct alignas(64) {
            std::uint8_t palette = 1, start = 0, reserved[14] = {};
            std::uint16_t bytes[16] = {};
            std::uint8_t rows[16] = {};
        } shape;
        static_assert(sizeof shape == 64);
        for (int i = 0; i < 8; ++i) shape.bytes[i] = 64, shape.rows[i] = static_cast<std::uint8_t>(rows[i]);
        asm volatile("ldtilecfg %0" ::"m"(shape) : "memory");
    }
    GATEFOLD_INLINE void release() { asm volatile("tilerelease" ::: "memory"); }

    template <int Tile>
    GATEFOLD_INLINE void zero() {
        asm volatile("tilezero %%tmm%c0" ::"i"(Tile));
    }
    template <int Tile>
    GATEFOLD_INLINE void load(const void* from, index_t stride) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(Tile) : "memory");
    }
    template <int Tile>
    GATEFOLD_INLINE void store(void* to, index_t stride) const {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(Tile) : "memory");
    }
    template <int C, int A, int B>
    GATEFOLD_INLINE void multiply() {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
    }
};

/// What the tier multiplies on.
using machine_tiles = hardware_tiles;

/// Whether this process may use the unit: the system is asked once. Where it refuses, the vector kernels of the same
/// order take over.
inline bool may_use_tiles() {
#if defined(__linux__)
    static const bool granted = [] {
        constexpr int request_permission = 0x1023, tile_data = 18;
        return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
    }();
    return granted;
#else
    return false;
#endif
}
#endif

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
