// Prints the bits of the library's functions as one number each, and fails if one differs from what it must be.
//
// Built with several compilers, optimisation levels, instruction sets and contraction modes: all must agree.
#include "math_bits.hpp"

#include <cstdio>

int main() {
    int wrong = 0;
    tests::for_each_math_bits(tests::evaluate_here{},
                              [&](const char* name, std::uint64_t expected, std::uint64_t hash) {
                                  wrong += hash != expected;
                                  std::printf("%-24s 0x%016llxu%s\n", name, static_cast<unsigned long long>(hash),
                                              hash == expected ? "" : "  is not the expected number");
                              });
    return wrong != 0;
}
