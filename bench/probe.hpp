// How fast this machine is right now: what the floor of every bench is computed from.
//
//     unit of the type ── independent chains in registers ──> GFLOP/s          memory ── streams past the caches ──>
//     GB/s
//
// Probed in the same process, with the same threads and the same clock as the calls that are compared with it, since
// both rates of a shared machine move by a factor of two within minutes.
#pragma once

#include <cstddef>

namespace bench {

/// The arithmetic that a type is multiplied in.
enum class unit { f32, bf16 };

struct rates {
    double gflops =
        0;  ///< the best seen of the unit in this process: it does not move, only the view of it is disturbed
    double dram_gbs = 0;  ///< reading memory, lately
};

/// The rates of `threads` threads together; probed anew when the last probe is older than half a second.
rates probe(unit arithmetic, int threads);

/// Seconds on the clock for calls on that many threads: the thread's CPU time for one, so that a program that takes the
/// core away is not charged; wall time for several.
double seconds(int threads);

/// Bytes of the last-level cache.
std::size_t last_level_cache();

/// Bytes of memory that can still be had without pushing others out.
double free_memory();

}  // namespace bench
