// Included before everything else, or with -include, by a program of one translation unit: gives a machine without AMX
// the instructions, so that what the compiler made of the AMX kernels is executed.
//
//     instruction ── #UD ──> SIGILL ── decode ──> unit of the thread ──> behind the instruction
//
// The system's permission is this file's to give: the function `syscall` of the program comes before the C library's.
// On a machine with AMX whose system grants it the instructions run as they are.
#pragma once

#include <gatefold/core/macros.hpp>

#if GATEFOLD_AMX
#include <cerrno>
#include <csignal>
#include <cstdarg>

#include <cpuid.h>
#include <sys/syscall.h>

#include <tests/matrix_unit/unit.hpp>

namespace matrix_unit {

inline std::atomic<int> asked{0};         ///< times that permission was asked for
inline std::atomic<bool> granted{false};  ///< by the last answer
inline std::atomic<bool> refuses{false};  ///< no more permission is given

inline long system_call(long number, const long (&a)[6]) {
    register long fourth __asm__("r10") = a[3];
    register long fifth __asm__("r8") = a[4];
    register long sixth __asm__("r9") = a[5];
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(fourth), "r"(fifth), "r"(sixth)
                     : "rcx", "r11", "memory");
    return result;
}

constexpr long request_permission = 0x1023, tile_data = 18;

/// Whether the processor has the unit and the system grants it.
inline bool in_silicon() {
    static const bool found = [] {
        unsigned a = 0, b = 0, c = 0, d = 0;
        constexpr unsigned saves_tiles = 3u << 17, tiles_and_bf16 = 1u << 24 | 1u << 22;
        if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & tiles_and_bf16) != tiles_and_bf16) return false;
        __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
        return (a & saves_tiles) == saves_tiles && system_call(SYS_arch_prctl, {request_permission, tile_data}) == 0;
    }();
    return found;
}

inline void on_illegal_instruction(int, siginfo_t*, void* context) {
    const int kept = errno;
    greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    const auto where = static_cast<std::uint64_t>(registers[REG_RIP]);
    const instruction it = decode(reinterpret_cast<const std::uint8_t*>(where), registers);
    if (it.flaw) fault(it.flaw, where);
    if (!granted) fault("used without permission", where);
    execute(it, where);
    registers[REG_RIP] += it.length;
    errno = kept;
}

struct installation {
    installation() {
        if (in_silicon()) return;
        struct sigaction action {};
        action.sa_sigaction = on_illegal_instruction;
        action.sa_flags = SA_SIGINFO;
        sigaction(SIGILL, &action, nullptr);
    }
    /// A program that asked for the unit and never multiplied on it has tested nothing.
    ~installation() {
        if (!granted || in_silicon() || executed.products != 0) return;
        std::fflush(stdout);
        fault("permission was given and not used", 0);
    }
    installation(const installation&) = delete;
    installation& operator=(const installation&) = delete;
};
inline const installation here;

}  // namespace matrix_unit

/// Reads six arguments however many there are, as the C library does.
extern "C" __attribute__((no_sanitize("address"))) long int syscall(long int number, ...) noexcept {
    va_list list;
    va_start(list, number);
    long a[6];
    for (long& each : a) each = va_arg(list, long);
    va_end(list);
    long result = -EPERM;
    if (number == SYS_arch_prctl && a[0] == matrix_unit::request_permission && a[1] == matrix_unit::tile_data) {
        ++matrix_unit::asked;
        matrix_unit::granted = !matrix_unit::refuses;
        if (matrix_unit::granted) result = 0;
    } else {
        result = matrix_unit::system_call(number, a);
    }
    if (result >= 0 || result < -4095) return result;
    errno = static_cast<int>(-result);
    return -1;
}
#endif
