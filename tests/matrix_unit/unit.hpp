// The tiles of one thread and what instructions do to them, with the faults of the manual. A fault ends the program:
// code that works here and not on a machine with the unit would be worse than none.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include <immintrin.h>
#include <unistd.h>

#include <tests/matrix_unit/instruction.hpp>

namespace matrix_unit {

inline constexpr int fault_status = 70;

[[noreturn]] inline void fault(const char* why, std::uint64_t where) {
    char text[160];
    const int length =
        std::snprintf(text, sizeof text, "matrix unit: %s, at 0x%llx\n", why, static_cast<unsigned long long>(where));
    [[maybe_unused]] const auto written = write(STDERR_FILENO, text, static_cast<std::size_t>(length));
    _exit(fault_status);
}

/// What all threads executed so far.
struct counts {
    std::atomic<long> products{0}, loads{0}, stores{0}, configurations{0}, releases{0};
    std::atomic<long> split{0};  ///< rows that were loaded or stored across the end of a cache line
};
inline counts executed;

struct tiles {
    bool configured;
    std::uint8_t rows[8];
    std::uint16_t bytes[8];
    alignas(64) std::uint8_t data[8][16][64];
};
inline constinit thread_local tiles own{};

/// The 64 bytes of a configuration. Returns what is wrong with them.
inline const char* configure(const std::uint8_t* from) {
    tiles next{};
    if (from[0] != 1) return "a palette other than 1";
    if (from[1] != 0) return "a row to start with";
    for (int i = 0; i < 64; ++i)
        if (from[i] != 0 && ((i >= 2 && i < 16) || (i >= 32 && i < 48) || i >= 56)) return "a reserved byte is set";
    for (int tile = 0; tile < 8; ++tile) {
        std::memcpy(&next.bytes[tile], from + 16 + 2 * tile, 2);
        next.rows[tile] = from[48 + tile];
        if (next.rows[tile] > 16) return "more than 16 rows";
        if (next.bytes[tile] > 64) return "rows of more than 64 bytes";
        if ((next.rows[tile] == 0) != (next.bytes[tile] == 0)) return "rows without bytes, or bytes without rows";
    }
    next.configured = true;
    own = next;
    return nullptr;
}

inline void describe(std::uint8_t* to) {
    std::memset(to, 0, 64);
    if (!own.configured) return;
    to[0] = 1;
    std::memcpy(to + 16, own.bytes, sizeof own.bytes);
    std::memcpy(to + 48, own.rows, sizeof own.rows);
}

/// The operands' shapes: C is M × N, A is M × K pairs, B is K × N pairs.
inline const char* mismatch(int c, int a, int b) {
    if (c == a || c == b || a == b) return "a tile is two operands";
    if (own.bytes[c] % 4 || own.bytes[a] % 4 || own.bytes[b] % 4) return "a row that is no multiple of four bytes";
    if (own.rows[c] != own.rows[a]) return "sums and first operand differ in rows";
    if (own.bytes[c] != own.bytes[b]) return "sums and second operand differ in columns";
    if (own.bytes[a] / 4 != own.rows[b]) return "the operands differ in what is summed";
    return nullptr;
}

/// Two chains of fused multiply-adds from zero, even and odd, their sum added to C: round to nearest even, subnormal
/// numbers are zeros on the way in and out. The mode of the caller does not matter; MXCSR is set around the call.
__attribute__((noinline)) inline void multiply(int c, int a, int b) {
    const auto columns = static_cast<__mmask16>((1u << own.bytes[c] / 4) - 1);
    const auto low_of = [](__m512i pairs) { return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, pairs, 16)); };
    const auto high_of = [](__m512i pairs) {
        return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
    };
    for (int m = 0; m < own.rows[c]; ++m) {
        __m512 even = _mm512_setzero_ps(), odd = even;
        for (int k = 0; k < own.bytes[a] / 4; ++k) {
            int pair;
            std::memcpy(&pair, own.data[a][m] + 4 * k, 4);
            const __m512i x = _mm512_set1_epi32(pair), y = _mm512_load_si512(own.data[b][k]);
            even = _mm512_fmadd_ps(low_of(x), low_of(y), even);
            odd = _mm512_fmadd_ps(high_of(x), high_of(y), odd);
        }
        float* sums = reinterpret_cast<float*>(own.data[c][m]);
        _mm512_store_ps(sums, _mm512_maskz_add_ps(columns, _mm512_load_ps(sums), _mm512_add_ps(even, odd)));
    }
}

inline void count_split(std::uint64_t address, int bytes) {
    if (address % 64 + static_cast<std::uint64_t>(bytes) > 64) ++executed.split;
}

inline void execute(const instruction& it, std::uint64_t where) {
    auto* memory = reinterpret_cast<std::uint8_t*>(it.address);
    const auto row_at = [&](int i) {
        const auto address = it.address + static_cast<std::uint64_t>(i) * static_cast<std::uint64_t>(it.stride);
        count_split(address, own.bytes[it.c]);
        return reinterpret_cast<std::uint8_t*>(address);
    };
    const auto need = [&](int tile) {
        if (!own.configured) fault("no configuration is loaded", where);
        if (own.rows[tile] == 0) fault("a tile without a shape", where);
    };
    switch (it.what) {
        case operation::load_configuration:
            ++executed.configurations;
            if (const char* why = configure(memory)) fault(why, where);
            break;
        case operation::store_configuration:
            describe(memory);
            break;
        case operation::release:
            ++executed.releases;
            own = tiles{};
            break;
        case operation::zero:
            need(it.c);
            std::memset(own.data[it.c], 0, sizeof own.data[it.c]);
            break;
        case operation::load:
            ++executed.loads;
            need(it.c);
            std::memset(own.data[it.c], 0, sizeof own.data[it.c]);
            for (int i = 0; i < own.rows[it.c]; ++i) std::memcpy(own.data[it.c][i], row_at(i), own.bytes[it.c]);
            break;
        case operation::store:
            ++executed.stores;
            need(it.c);
            for (int i = 0; i < own.rows[it.c]; ++i) std::memcpy(row_at(i), own.data[it.c][i], own.bytes[it.c]);
            break;
        case operation::multiply:
            ++executed.products;
            need(it.c), need(it.a), need(it.b);
            if (const char* why = mismatch(it.c, it.a, it.b)) fault(why, where);
            constexpr unsigned nearest_and_zeros = 0x1f80 | 0x8040;
            const unsigned mode = _mm_getcsr();
            _mm_setcsr(nearest_and_zeros);
            multiply(it.c, it.a, it.b);
            _mm_setcsr(mode);
            break;
    }
}

}  // namespace matrix_unit
