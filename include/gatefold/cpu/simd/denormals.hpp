// Subnormal numbers in bf16 products: read as zero, results flushed to zero, as the matrix units do it.
#pragma once

#include <cstdint>

#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// While it lives, the arithmetic of this thread treats subnormal operands and results as zeros. On targets where that
/// cannot be switched, subnormals are kept: products of bf16 that small differ there.
///
/// Arithmetic must stand in a function of its own that is not inlined into the scope: the compiler does not know that
/// the mode matters.
class flush_subnormals {
public:
#if defined(__x86_64__)
    GATEFOLD_INLINE flush_subnormals() : saved_(__builtin_ia32_stmxcsr()) {
        if ((saved_ & both) != both) __builtin_ia32_ldmxcsr(saved_ | both);
    }
    GATEFOLD_INLINE ~flush_subnormals() {
        if ((saved_ & both) != both) __builtin_ia32_ldmxcsr(saved_);
    }

private:
    static constexpr unsigned both = 0x8040;
    unsigned saved_;
#elif defined(__aarch64__)
    GATEFOLD_INLINE flush_subnormals() {
        asm volatile("mrs %0, fpcr" : "=r"(saved_));
        asm volatile("msr fpcr, %0" ::"r"(saved_ | std::uint64_t{1} << 24));
    }
    GATEFOLD_INLINE ~flush_subnormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

private:
    std::uint64_t saved_;
#else
    GATEFOLD_INLINE flush_subnormals() {}
    GATEFOLD_INLINE ~flush_subnormals() {}

private:
#endif
public:
    flush_subnormals(const flush_subnormals&) = delete;
    flush_subnormals& operator=(const flush_subnormals&) = delete;
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
