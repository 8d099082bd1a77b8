// How fast this device is right now: what the floors of gatefold_bench_cuda are computed from.
//
//     unit of the type ── independent chains in registers ──> TFLOP/s        memory ── streams of 16 bytes ──> GB/s
#pragma once

#include "probe.hpp"

namespace bench {

/// What was found, in GFLOP/s and GB/s.
struct device_rates {
    double fma = 0;       ///< float multiply-add on the CUDA cores
    double mma_sync = 0;  ///< bf16 products, m16n8k16, the instruction of the library's kernels
    double wgmma = 0;     ///< the same as warpgroup products; 0: the device or this build has none
    double read = 0;      ///< reading memory
    double copied = 0;    ///< a copy within the device, bytes read plus bytes written
};

/// Measured once per process.
const device_rates& probed_device();

/// The ceilings of a floor: for bf16 the fastest matrix instruction of the device, whoever uses it.
rates device_ceilings(unit arithmetic);

}  // namespace bench
